"""`gs-backup doctor --fix-bucket`: shows the lifecycle rules that a bucket should have, asks, and puts them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from gs_backup_assets.cli.common import emit, finish
from gs_backup_assets.errors import ConfigError, ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.config import DatabaseSettings
    from gs_backup_assets.recovery.doctor.bucket_setup import RulePlan
    from gs_backup_assets.vault.opening import Which


def fix_buckets(settings: DatabaseSettings, *, yes: bool, as_json: bool) -> None:
    """Go through the stores that are buckets, one after the other; nothing but lifecycle rules is touched.

    ConfigError: `NO_BUCKET`, and `CONFIRMATION_MISSING` where nobody can be asked and --yes is not given.
    """
    from gs_backup_assets.recovery.doctor.bucket import bucket_config

    stores: tuple[Which, ...] = ("primary", "offsite")
    buckets = [which for which in stores if bucket_config(settings, which) is not None]
    if not buckets:
        raise ConfigError(
            "NO_BUCKET", f"No store of {settings.name} is a bucket.", "--fix-bucket is for stores of the kind s3."
        )
    results = [_fix(settings, which, yes=yes) for which in buckets]
    document = {"database": settings.name, "buckets": results}
    emit(document, as_json, lambda console: _show(console, results))
    declined = any(result["outcome"] == "declined" for result in results)
    finish(ExitStatus.FAILED if declined else ExitStatus.GOOD)


def _fix(settings: DatabaseSettings, which: Which, *, yes: bool) -> dict[str, Any]:
    from gs_backup_assets.recovery.doctor.bucket import bucket_config, open_bucket
    from gs_backup_assets.recovery.doctor.bucket_setup import apply_rules, plan_rules

    config = bucket_config(settings, which)
    assert config is not None
    bucket = open_bucket(settings, which)
    plan = plan_rules(bucket, config)
    outcome = "unchanged"
    if plan.changes:
        _show_plan(bucket.store.bucket, which, plan)
        outcome = "applied" if yes or _confirmed(bucket.store.bucket) else "declined"
        if outcome == "applied":
            apply_rules(bucket, plan)
    return {
        "store": which,
        "bucket": bucket.store.bucket,
        "outcome": outcome,
        "changes": list(plan.lines()),
        "rules_before": list(plan.present.rules),
        "rules": list(plan.new),
    }


def _show_plan(bucket: str, which: Which, plan: RulePlan) -> None:
    """On standard error, so that the JSON of the result stands alone on standard output."""
    from gs_backup_assets.recovery.doctor.bucket_rules import as_json

    lines = [f"Lifecycle rules of the bucket {bucket} ({which} store), all of them:", ""]
    lines += [f"  {line}" for line in plan.lines()]
    lines += ["", "As they would be written:", "", as_json({"Rules": list(plan.new)}, indent=2), ""]
    sys.stderr.write("\n".join(lines) + "\n")


def _confirmed(bucket: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            "CONFIRMATION_MISSING",
            f"Nobody can be asked whether the rules of {bucket} may be changed; nothing was.",
            "Look at the rules above, then run it with --yes.",
        )
    return typer.confirm(f"Put these rules on {bucket}?", default=False, err=True)


_WORDS = {
    "unchanged": "has the recommended lifecycle rules already: nothing was changed.",
    "applied": "has the rules now; they were read back and are equal.",
    "declined": "was not changed.",
}


def _show(console: Console, results: list[dict[str, Any]]) -> None:
    for result in results:
        words = _WORDS[result["outcome"]]
        console.print(f"The bucket {result['bucket']} ({result['store']} store) {words}", markup=False)
