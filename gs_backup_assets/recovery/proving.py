"""Proves a backup and keeps what came out: the record in the store, report and Data Docs in the reports folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.integrity.report import render
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.prove import prove
from gs_backup_assets.recovery.servers import RestoreServer
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class Proved:
    """A proof that is on record, and where its report and its Data Docs can be read."""

    record: ProofRecord
    report_path: Path
    docs_path: Path


def prove_and_record(
    settings: DatabaseSettings, store: Store, entry: Entry, progress: Progress, *, server: RestoreServer | None = None
) -> Proved:
    """Prove one backup, store record and report beside its manifest, and leave a copy of the report for people.

    The reports folder holds the newest report and Data Docs of each day; the store holds every proof.
    """
    folder = settings.reports_path / settings.name / entry.partition
    docs = folder / "data_docs"
    aside = folder / "data_docs.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    record = prove(settings, store, entry, progress, server=server, docs=aside)
    html = render(record, entry.manifest)
    Catalogue(store, settings.name).add_proof(record, html)
    shutil.rmtree(docs, ignore_errors=True)
    aside.rename(docs)
    report = folder / "report.html"
    new = folder / "report.html.new"
    new.write_bytes(html)
    new.rename(report)
    return Proved(record, report, docs)
