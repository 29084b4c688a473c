"""`gs-backup doctor --fix-bucket` as it is typed: shows, asks on a terminal, puts, and changes nothing else."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from gs_backup_assets.cli import doctor as doctor_verb
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets_tests.s3_server import READER, S3Server

app = typer.Typer()
app.command("doctor")(doctor_verb.doctor)
THEIRS = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}


@pytest.fixture
def here(tmp_path: Path, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a backup.yaml whose off-site store is a bucket that has a rule of others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GS_BACKUP_CONFIG", raising=False)
    put_rules(s3_server, bucket, THEIRS)
    configure(s3_server, bucket)
    return tmp_path


def configure(server: S3Server, bucket: str, **extra: Any) -> None:
    stores = {"offsite": server.config(bucket, "prod", **extra).model_dump(mode="json", exclude_unset=True)}
    document = {"databases": {"shop": {"url_env": "NOT_SET"}}, "stores": stores}
    Path("backup.yaml").write_text(yaml.safe_dump(document))


def put_rules(server: S3Server, bucket: str, *rules: dict[str, Any]) -> None:
    server.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


def rules_of(server: S3Server, bucket: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return found


def fix(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["--fix-bucket", *arguments])


def refused(*arguments: str) -> BackupError:
    error = fix(*arguments).exception
    assert isinstance(error, BackupError)
    return error


def on_a_terminal(answer: str) -> tuple[int, str]:
    """The exit status and what a person sees who is asked and answers."""
    leader, follower = pty.openpty()
    argv = [Path(sys.executable).with_name("gs-backup"), "doctor", "--fix-bucket"]
    with subprocess.Popen(argv, stdin=follower, stdout=follower, stderr=follower, close_fds=True) as process:
        os.close(follower)
        seen = b""
        answered = False
        while True:
            try:
                block = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            seen += block
            if not answered and b"[y/N]" in seen:
                os.write(leader, f"{answer}\n".encode())
                answered = True
            if not block:
                break
        status = process.wait(timeout=60)
    os.close(leader)
    return status, seen.decode()


def test_without_a_terminal_it_wants_yes(here: Path, s3_server: S3Server, bucket: str) -> None:
    done = fix()
    assert isinstance(done.exception, BackupError)
    assert (done.exception.code, done.exception.exit_status) == ("CONFIRMATION_MISSING", ExitStatus.USAGE)
    assert "+ gs-backup-unfinished-uploads" in done.stderr, "what would be done is shown all the same"
    assert rules_of(s3_server, bucket) == [THEIRS]


def test_yes_puts_the_rules_and_a_second_time_changes_nothing(here: Path, s3_server: S3Server, bucket: str) -> None:
    done = fix("--yes", "--json")
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["buckets"]
    assert (result["store"], result["bucket"], result["outcome"]) == ("offsite", bucket, "applied")
    assert result["rules_before"] == [THEIRS] and result["rules"] == rules_of(s3_server, bucket)
    shown = done.stderr
    assert "  logs: below logs/: DELETE objects after 3 days" in shown
    assert json.loads(shown[shown.index("{") : shown.rindex("}") + 1]) == {"Rules": result["rules"]}
    again = fix()
    assert again.exit_code == 0
    assert "nothing was changed" in again.stdout and again.stderr == ""


def test_a_terminal_is_asked(here: Path, s3_server: S3Server, bucket: str) -> None:
    status, seen = on_a_terminal("n")
    assert status == 1 and f"Put these rules on {bucket}?" in seen and "was not changed" in seen
    assert rules_of(s3_server, bucket) == [THEIRS]
    status, seen = on_a_terminal("y")
    assert status == 0 and "has the rules now" in seen
    assert THEIRS in rules_of(s3_server, bucket) and len(rules_of(s3_server, bucket)) == 2


def test_a_role_that_may_not_change_rules_is_told_so(here: Path, s3_server: S3Server, bucket: str) -> None:
    configure(s3_server, bucket, **READER)
    error = refused("--yes")
    assert (error.code, error.exit_status) == ("PERMISSION_MISSING", ExitStatus.NOT_VERIFIED)
    assert "s3:PutLifecycleConfiguration" in error.hint
    assert rules_of(s3_server, bucket) == [THEIRS]


def test_stores_that_are_folders_have_no_rules(here: Path) -> None:
    Path("backup.yaml").write_text("databases: {shop: {url_env: NOT_SET}}\n")
    assert refused("--yes").code == "NO_BUCKET"


def test_yes_goes_with_fix_bucket() -> None:
    error = CliRunner().invoke(app, ["--yes"]).exception
    assert isinstance(error, BackupError) and error.code == "YES_WITHOUT_FIX"
