"""The page about the proof of a base backup: what was recovered, what was found, how long it took. Self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.verdict import Status, Verdict

_SENTENCES = {
    Verdict.PROVEN: "This base backup was unpacked and recovered on a server of its own, and is sound inside.",
    Verdict.FAILED: "Do not rely on this base backup: it did not pass its proof.",
    Verdict.NOT_VERIFIED: "It is not known whether this base backup can be recovered from.",
}
_SIGNS = {Status.PASSED: "✓", Status.FAILED: "✕", Status.NOT_VERIFIED: "?"}


def render_recovery(record: ProofRecord, manifest: PhysicalManifest, facts: Mapping[str, str]) -> bytes:
    """The report as one HTML file in UTF-8, equal for equal input. `facts` are lines about this very recovery."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    source = resources.files(__package__).joinpath("recovery_report.html").read_text(encoding="utf-8")
    about = {
        **facts,
        "Taken": f"{manifest.started_at:%Y-%m-%d %H:%M:%S} to {manifest.consistent_at:%Y-%m-%d %H:%M:%S} UTC",
        "Server": f"PostgreSQL {manifest.server.release}, system identifier {manifest.system_identifier}",
        "Log": f"timeline {manifest.timeline}, {manifest.start_lsn} to {manifest.stop_lsn}",
        "Bytes": f"{manifest.cluster_bytes:,} of the cluster, {manifest.stored_bytes:,} stored",
        "Manifest": f"SHA-256 {record.manifest_sha256}",
        "Proved": f"{record.finished_at:%Y-%m-%d %H:%M:%S} UTC from the {record.store} copy, by gs_backup_assets"
        f" {record.software} with PostgreSQL {record.programs}",
    }
    page = environment.from_string(source).render(
        record=record,
        word=record.verdict.value.replace("_", " "),
        sentence=_SENTENCES[record.verdict],
        signs=_SIGNS,
        about=about,
    )
    return page.encode()
