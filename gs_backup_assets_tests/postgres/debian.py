"""Programs out of Debian's packages, without installing them: for servers and poolers that no wheel has."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import make_readable, open_cache


def unpacked(name: str, packages: Sequence[str], *, at_least: Release | None = None) -> Path:
    """Folder with the packages' files, downloaded once and kept in the cache between runs.

    With `at_least`, the first package must be of that upstream version or later. Skips on a platform without Debian's
    packages, and fails on one that has them but cannot download: a missing server must not look green.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("this platform has no Debian packages")
    home = open_cache("debian") / name
    if home.is_dir():
        return home
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-") as temporary:
        downloads, tree = Path(temporary, "downloads"), Path(temporary, "tree")
        downloads.mkdir()
        said = _download(packages, downloads)
        if not _all_there(downloads, packages, at_least):  # package lists that are missing or old
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            said = _download(packages, downloads)
        if not _all_there(downloads, packages, at_least):
            have = ", ".join(sorted(path.name for path in downloads.iterdir())) or "nothing"
            pytest.fail(
                f"apt-get did not download {', '.join(packages)} ({at_least or 'any version'}); got {have}: {said}"
            )
        for package in packages:
            newest = max(downloads.glob(f"{package}_*.deb"), key=_upstream)
            subprocess.run(["dpkg-deb", "-x", newest, tree], check=True)
        make_readable(tree)
        if not home.is_dir():  # another worker may have been first
            tree.rename(home)
    return home


def _download(packages: Sequence[str], folder: Path) -> str:
    done = subprocess.run(["apt-get", "download", *packages], cwd=folder, capture_output=True, text=True, check=False)
    return done.stderr.strip()


def _all_there(folder: Path, packages: Sequence[str], at_least: Release | None) -> bool:
    for package in packages:
        found = [_upstream(path) for path in folder.glob(f"{package}_*.deb")]
        if not found or (package == packages[0] and at_least is not None and max(found) < at_least):
            return False
    return True


def _upstream(package: Path) -> Release:
    return Release.parse(re.sub(r"^(\d+%3a|\d+:)", "", package.name.split("_")[1]))
