"""The entry point of `gs-backup`: registers the verbs and turns errors into words and exit statuses."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from types import FrameType

import typer

from gs_backup_assets.errors import BackupError, ExitStatus

_INTERRUPTED = 128 + signal.SIGINT
_RECOVERY_MUST_END = 200

app = typer.Typer(
    name="gs-backup",
    help="PostgreSQL backups you can prove: take, check, restore, prove, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _register() -> None:
    from gs_backup_assets.cli import (
        anonymise,
        audit,
        base_backup,
        copy,
        cost,
        coverage,
        demo,
        disaster_recover,
        doctor,
        drill,
        fetch,
        hold,
        init,
        keys,
        listing,
        objectives,
        prune,
        recover,
        replica,
        restore,
        restore_point,
        run,
        selftest,
        serve,
        staging_test,
        status,
        toolchain,
        verify,
        wal,
        watch,
    )

    app.command("demo")(demo.demo)
    app.add_typer(toolchain.app, name="toolchain")
    app.add_typer(audit.app, name="audit")
    app.add_typer(keys.app, name="keys")
    app.add_typer(wal.app, name="wal")
    app.add_typer(replica.app, name="replica")
    app.command("init")(init.init)
    app.command("doctor")(doctor.doctor)
    app.command("run")(run.run)
    app.command("list")(listing.list_backups)
    app.command("show")(listing.show)
    app.command("hold")(hold.hold)
    app.command("release")(hold.release)
    app.command("prune")(prune.prune)
    app.command("verify")(verify.verify)
    app.command("copy")(copy.copy)
    app.command("base-backup")(base_backup.base_backup)
    app.command("restore")(restore.restore)
    app.command("disaster-recover")(disaster_recover.disaster_recover)
    app.command("fetch")(fetch.fetch)
    app.command("recover")(recover.recover)
    app.command("drill")(drill.drill)
    app.command("restore-point")(restore_point.restore_point)
    app.command("staging-test")(staging_test.staging_test)
    app.command("anonymise")(anonymise.anonymise)
    app.command("coverage")(coverage.coverage)
    app.command("objectives")(objectives.objectives)
    app.command("status")(status.status)
    app.command("watch")(watch.watch)
    app.command("serve")(serve.serve)
    app.command("cost")(cost.cost)
    app.command("selftest")(selftest.selftest)


def main() -> None:
    """Run a verb. Every error is told as code, what happened and what to do, with the exit status of its kind."""
    signal.signal(signal.SIGTERM, _terminated)
    as_json = "--json" in sys.argv
    answered = False
    try:
        _register()
        outcome = app(standalone_mode=False)
        status = outcome if isinstance(outcome, int) else int(ExitStatus.GOOD)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
        answered = True
    except BackupError as error:
        _tell(error, as_json)
        status = int(error.exit_status)
    except (KeyboardInterrupt, typer.Abort):  # older parsers turn the first into the second, newer ones into a status
        sys.stderr.write("\nInterrupted: everything that was started has been ended, nothing half-made was kept.\n")
        status = _INTERRUPTED
    except Exception as error:
        status = _tell_unexpected(error, as_json)
    # To a server every status up to 125 of its restore_command says "not there": an error must end the recovery.
    sys.exit(status if answered or sys.argv[1:3] != ["wal", "fetch"] else _RECOVERY_MUST_END)


def _tell(error: BackupError, as_json: bool) -> None:
    _tell_json(error.code, as_json, message=error.message, hint=error.hint)
    sys.stderr.write(f"{error.code}: {error.message}\n{error.hint}\n")


def _tell_unexpected(error: Exception, as_json: bool) -> int:
    # Typer's own usage errors carry an exit code and know how to show themselves.
    if hasattr(error, "exit_code") and hasattr(error, "show"):
        error.show()
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        _tell_json("USAGE", as_json, message=message, hint="`gs-backup --help` lists verbs and options.")
        return int(ExitStatus.USAGE)
    # Where it happened is what a report of it needs; status 1 would say that a proof had failed.
    traceback.print_exc()
    hint = "This is a fault of gs-backup: report it with the lines on standard error."
    _tell_json("UNEXPECTED", as_json, message=f"{type(error).__name__}: {error}", hint=hint)
    return int(ExitStatus.PROGRAM)


def _tell_json(code: str, as_json: bool, *, message: str, hint: str) -> None:
    if as_json:
        document = {"error": {"code": code, "message": message, "hint": hint}}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
