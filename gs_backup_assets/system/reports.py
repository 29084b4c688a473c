"""The reports folder: what people read of proofs. It is private, because reports name keys of production's rows."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from gs_backup_assets.errors import BackupError, ProgramError
from gs_backup_assets.system.workspace import workspace

REPORT = "report.html"
DATA_DOCS = "data_docs"


class ReportNotKept(BackupError):
    """People's copy of a report could not be written (`REPORT_NOT_KEPT`). What it tells of stands."""


class Reports:
    """A folder of reports. Everything is written aside, in a private folder of this call, and put in place when it is
    whole: of two that write at the same time the last one wins, and neither sees the other.

    `made` are the folders that were not there before, the lowest first; `refusal` is why nothing can be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: tuple[Path, ...] = ()
        self.refusal: ReportNotKept | None = None
        self._aside: Path | None = None

    @property
    def docs(self) -> Path | None:
        """Where Data Docs are written until they are kept; None where nothing can be written."""
        return self._aside / DATA_DOCS if self._aside is not None else None

    def keep(self, files: Mapping[str, bytes], *, with_docs: bool = False) -> ReportNotKept | None:
        """Put files and, `with_docs`, the Data Docs in place, folders 0700 and files 0600; returns what went wrong."""
        if self._aside is None:
            return self.refusal
        try:
            if with_docs:
                _replace_folder(self._aside, self.folder)
            for name, data in files.items():
                new = self._aside / name
                new.write_bytes(data)
                new.chmod(0o600)
                new.replace(self.folder / name)
        except OSError as error:
            self.refusal = _not_kept(self.folder, error)
        return self.refusal

    def open(self, stack: ExitStack) -> None:
        """Make the folder and the private one in it, which `stack` removes."""
        try:
            self.made = tuple(folder for folder in (self.folder, *self.folder.parents) if not folder.exists())
            for folder in reversed(self.made):
                folder.mkdir(mode=0o700, exist_ok=True)
            aside = stack.enter_context(workspace("report", parent=self.folder))
            (aside / DATA_DOCS).mkdir()
        except (OSError, ProgramError) as error:
            self.refusal = _not_kept(self.folder, error)
        else:
            self._aside = aside


@contextmanager
def reports_in(folder: Path) -> Iterator[Reports]:
    """Open a folder for reports, which is made where it is missing. Where that cannot be, it is `refusal` that says so:
    a proof is none the worse for it."""
    with ExitStack() as stack:
        reports = Reports(folder)
        reports.open(stack)
        yield reports


def _replace_folder(aside: Path, folder: Path) -> None:
    """Put new Data Docs in the place of older ones. Another one may do the same at the same time."""
    new, place = aside / DATA_DOCS, folder / DATA_DOCS
    for path in (new, *new.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for attempt in count():
        with suppress(FileNotFoundError):  # there are none, or another one has just taken them away
            place.rename(aside / f"replaced-{attempt}")
        try:
            new.rename(place)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another one has put its own there in the meantime


def _not_kept(folder: Path, error: OSError | ProgramError) -> ReportNotKept:
    why = error.message if isinstance(error, ProgramError) else f"{error.strerror or error}."
    return ReportNotKept(
        "REPORT_NOT_KEPT",
        f"The report for people could not be written to {folder}: {why}",
        "Set `reports` in backup.yaml to a folder that this account may write to; `gs-backup doctor` looks at it.",
    )
