"""The self-test's base backups and archived log, of which copies are broken."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.selftest.physical_copy import PhysicalCopy
from gs_backup_assets.recovery.selftest.vault_bench import REFUSED, Examination


@dataclass(frozen=True)
class PhysicalBreakage:
    """One way to break base backups or the log. It is caught when `look`, after `apply`, names one of `expected`.

    A look gives the verdict and the codes of what it found, or raises BackupError.
    """

    name: str
    title: str
    expected: tuple[str, ...]
    apply: Callable[[PhysicalCopy], None]
    look: Callable[[PhysicalCopy], Examination]


@dataclass(frozen=True)
class PhysicalBench:
    """Base backups and archived log that are sound."""

    sound: PhysicalCopy

    def copy(self) -> PhysicalCopy:
        """A copy of everything; hard links, since what is broken is replaced."""
        place = self.sound.folder.parent / f"physical-{secrets.token_hex(4)}"
        shutil.copytree(self.sound.folder, place, copy_function=os.link)
        settings = self.sound.settings.model_copy(update={"folder": place})
        return PhysicalCopy(place, settings, self.sound.chain, self.sound.newest, self.sound.log)

    def broken(self, breakage: PhysicalBreakage) -> tuple[Callable[[], Examination], float]:
        """Breaks a copy; returns what examines it, and the seconds that it took."""
        started = time.monotonic()
        copy = self.copy()
        breakage.apply(copy)
        return partial(self.examine, copy, (breakage.look,)), time.monotonic() - started

    def examine(self, copy: PhysicalCopy, looks: Sequence[Callable[[PhysicalCopy], Examination]]) -> Examination:
        """Look at a copy, and remove it; the first look that finds something counts."""
        try:
            for look in looks:
                verdict, codes = look(copy)
                if verdict != Verdict.PROVEN.value:
                    return verdict, codes
        except BackupError as error:
            return REFUSED, (error.code,)
        finally:
            shutil.rmtree(copy.folder)
        return Verdict.PROVEN.value, ()
