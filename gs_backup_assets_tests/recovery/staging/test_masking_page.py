"""The examples of docs/anonymise.md and docs/staging-test.md are valid; the one for the sample masks all it names."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.config_recovery import Staging
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.staging.masking import mask_database
from gs_backup_assets.recovery.staging.masking_proof import prove_masked
from gs_backup_assets.sample.generate import load_sample

DOCS = Path(__file__).parents[3] / "docs"


def examples(page: str) -> list[dict[str, object]]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_the_example_of_staging_is_valid() -> None:
    (example,) = examples("staging-test.md")
    section = Staging.model_validate(example["staging"])
    assert [hook.name for hook in (*section.stop, *section.start)] == ["stop", "start"] and len(section.health) == 2


def test_the_rules_for_the_sample_mask_it(empty_database: Target) -> None:
    general, sample = (Anonymise.model_validate(example["anonymise"]) for example in examples("anonymise.md"))
    assert general.tables["customer"]["remarks"] == "null" and general.tables["customer"]["email"] == "fake:email"
    with connect(empty_database) as connection:
        load_sample(connection, scale=0.05)
    masked = mask_database(empty_database, sample, b"a secret for the page", Progress())
    check = prove_masked(empty_database, masked, Progress())
    assert check.status is Status.PASSED, check.findings
    assert check.metrics["masked_columns"] == sum(len(columns) for columns in sample.tables.values())
