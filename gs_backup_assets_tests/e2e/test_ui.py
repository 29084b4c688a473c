"""What people see: a schedule ticks, its run is there, the day is green, a defect turns it red and somebody is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as TimeoutError_

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.integrity.rules import load_rules
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.sample.sabotage import plant
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import ALERTS_VARIABLE, URL_VARIABLE, Project, url_of
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.e2e.house import browser, dagster, switch_schedule
from gs_backup_assets_tests.processes import wait_until

LOCATION = "gs_backup_assets"
SECONDS = 180.0
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class House:
    """A project whose schedule ticks every minute, its UI in a browser, and where its messages arrive."""

    project: Project
    page: Page
    receiver: Receiver
    address: str
    environment: dict[str, str]

    def schedule(self, word: str) -> None:
        """Start it, or stop it: a run a minute would pile up on a slow machine."""
        switch_schedule(word, "studio_daily_backup_schedule", self.project.folder / "home", self.environment)

    def see(self, path: str, what: str) -> None:
        """Look at a page, again and again, until a text is there."""
        found = self.page.get_by_text(what).first

        def there() -> bool:
            self.page.goto(f"{self.address}{path}")
            try:
                found.wait_for(timeout=10_000)
            except TimeoutError_:
                return False
            return True

        try:
            wait_until(there, what=f"{what!r} on {path}", seconds=SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; what is there: {self.page.inner_text('body')[:3000]}") from error


@pytest.fixture(scope="module")
def house(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with ExitStack() as stack:
        target = stack.enter_context(fresh_database(server17))
        with connect(target) as connection:
            load_sample(connection, scale=0.02)
        project = Project(folder, target)
        project.configure(logical='{schedule: "* * * * *"}', rules="guitar_strategies")
        receiver = stack.enter_context(Receiver())
        variables = {
            URL_VARIABLE: url_of(target),
            ALERTS_VARIABLE: receiver.url(),
            "GS_BACKUP_CONFIG": str(project.file),
        }
        environment = {**os.environ, **variables}
        address = stack.enter_context(dagster(folder / "home", environment))
        page = stack.enter_context(browser())
        yield House(project, page, receiver, address, environment)


def test_the_schedule_ticks_and_its_run_is_there(house: House) -> None:
    house.see(f"/locations/{LOCATION}/schedules/studio_daily_backup_schedule", "very minute")
    house.see("/runs", "studio_daily_backup")
    house.schedule("stop")
    wait_until(lambda: house.project.catalogue.last_proven() is not None, what="a proven backup", seconds=SECONDS)
    house.see("/runs", "Success")


def test_the_day_is_green(house: House) -> None:
    house.see("/assets/studio/verified_restore?view=partitions", "Materialized")
    partition = house.page.get_by_text(house.project.today, exact=True).first
    partition.wait_for()


def test_the_checks_show_the_rules_and_all_have_passed(house: House) -> None:
    names = [rule.id for rule in load_rules("guitar_strategies").rules]
    house.see("/assets/studio/integrity_report?view=checks", "foreign_keys_hold")
    search = house.page.get_by_placeholder("Filter checks")
    for name in names:  # the list shows a part of them at a time
        search.fill(name)
        expect(house.page.get_by_text(name, exact=True).first).to_be_attached()  # cut short where it is long
        expect(house.page.get_by_text("Succeeded").first).to_be_visible()


def test_a_planted_defect_turns_it_red_and_somebody_is_told(house: House) -> None:
    with connect(house.project.source) as connection:
        rule = plant(connection, "orphaned-lesson").rule
    before = house.project.catalogue.latest()
    assert before is not None
    house.schedule("start")

    def another() -> bool:
        newest = house.project.catalogue.latest()
        return newest is not None and newest.id > before.id

    wait_until(another, what="another backup", seconds=SECONDS)
    house.schedule("stop")

    def told() -> bool:
        return any(rule in str(post) for post in house.receiver.received)

    wait_until(told, what="a message that names the rule", seconds=SECONDS)
    house.see(f"/assets/studio/integrity_report?view=checks&checkDetail={rule}", "Failed")
    last_proven = house.project.catalogue.last_proven()
    assert last_proven is not None and last_proven.verdict is Verdict.PROVEN, "the backup is good: production is not"
