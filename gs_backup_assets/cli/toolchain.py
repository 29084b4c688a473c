"""`gs-backup toolchain`: PostgreSQL's programs on this machine, and fetching more of them without root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import JsonOption, emit
from gs_backup_assets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from gs_backup_assets.postgres.toolchain import Toolchain

app = typer.Typer(
    help="PostgreSQL's programs: which are here, what each set can do, fetch a major.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_CAPABILITIES = ("dump", "server", "tls", "zstd", "lz4", "amcheck")


@app.command("list")
def list_toolchains(
    server: Annotated[
        str | None, typer.Option("--server", help="A server's version, such as 15.20: shows which set would be chosen.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every set of programs found on this machine."""
    from gs_backup_assets.postgres.toolchain import choose, discover

    found = discover()
    chosen = None
    if server is not None:
        chosen = choose(_release(server))  # the error says what there is and what to do
    document: dict[str, Any] = {"toolchains": [_described(t) for t in found]}
    if chosen is not None:
        document["chosen"] = _described(chosen)
    emit(document, as_json, lambda console: _show(console, found, chosen, server))


@app.command("add")
def add(
    majors: Annotated[list[int], typer.Argument(help="One or several majors, such as 16 17 18.", metavar="MAJOR...")],
    missing: Annotated[
        bool, typer.Option("--missing", help="Only majors of which no complete set is found on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch the newest release of a major into the user's cache; no root needed."""
    from gs_backup_assets.postgres.fetch import add_toolchain
    from gs_backup_assets.postgres.toolchain import discover

    added: list[dict[str, Any]] = []
    lines: list[str] = []
    for major in majors:
        before = {toolchain.bin: toolchain for toolchain in discover()}
        complete = (t for t in before.values() if t.capabilities.server and t.capabilities.dump)
        present = [t for t in complete if t.release.major == major]
        toolchain = present[0] if missing and present else add_toolchain(major)
        new = toolchain.bin not in before
        added.append({**_described(toolchain), "new": new})
        lines.append(f"{toolchain} {'was added' if new else 'is already here'}.")
    emit({"toolchains": added}, as_json, lambda console: console.print("\n".join(lines), markup=False))


def _release(text: str) -> Any:
    from gs_backup_assets.postgres.release import Release

    try:
        return Release.parse(text)
    except ValueError:
        raise ConfigError("VERSION_INVALID", f"{text!r} is no PostgreSQL version.", "Write it as 15.20.") from None


def _described(toolchain: Toolchain) -> dict[str, Any]:
    capabilities = toolchain.capabilities
    return {
        "version": str(toolchain.release),
        "folder": str(toolchain.bin),
        "origin": toolchain.origin,
        **{name: getattr(capabilities, name) for name in _CAPABILITIES},
    }


def _show(console: Console, found: Sequence[Toolchain], chosen: Toolchain | None, server: str | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found:
        console.print("No PostgreSQL programs were found. `gs-backup toolchain add 17` fetches some.", markup=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "version", "origin", *_CAPABILITIES, "folder"):
        table.add_column(heading, no_wrap=heading != "folder", overflow="fold")
    for toolchain in found:
        described = _described(toolchain)
        marks = ("yes" if described[name] else "-" for name in _CAPABILITIES)
        mark, folder = "*" if toolchain == chosen else "", escape(str(toolchain.bin))
        table.add_row(mark, described["version"], toolchain.origin, *marks, folder)
    console.print(table)
    if chosen is not None:
        console.print(f"* is chosen for a server of PostgreSQL {server}.", markup=False)
