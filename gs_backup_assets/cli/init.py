"""`gs-backup init`: writes a first backup.yaml from what the server says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import ConfigOption, JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console


def init(
    config: ConfigOption = None,
    url_env: Annotated[
        str, typer.Option("--url-env", help="The environment variable that holds the database's address.")
    ] = "DATABASE_URL",
    name: Annotated[
        str | None, typer.Option("--name", help="What to call the database.", show_default="as on the server")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a backup.yaml for the database in DATABASE_URL; an existing file is left as it is."""
    from gs_backup_assets.config import FILE_NAME
    from gs_backup_assets.recovery.initial import ask_server, config_exists, write_first_config

    path = config or Path(FILE_NAME)
    if path.exists() and not force:  # said before the server is asked, and made sure of again when writing
        raise config_exists(path)
    settings = ask_server(url_env, name)
    write_first_config(path, settings, force=force)
    document = {
        "file": str(path),
        "database": settings.name,
        "url_env": settings.url_env,
        "timezone": settings.timezone,
        "compression": settings.compression,
        "rules": settings.rules,
        "data_classes": {name: len(entry.tables) for name, entry in settings.classes.items()},
        "notes": list(settings.notes),
    }

    def show(console: Console) -> None:
        console.print(f"{path} was written for the database {settings.name}.", markup=False)
        for note in settings.notes:
            console.print(f"  - {note}", markup=False)
        console.print("Next: gs-backup doctor", markup=False)

    emit(document, as_json, show)
