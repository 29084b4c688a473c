"""The doctor's checks of a bucket: versions, encryption, strangers, lock, lifecycle, write-once, checksums."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.doctor import bucket_rules
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, not_verified, passed
from gs_backup_assets.vault.opening import ClientFactory, Which, open_store
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from gs_backup_assets.vault.bucket import Bucket, Lifecycle, LockSettings
    from gs_backup_assets.vault.bucket_probe import Probed

CHECKS = (
    *("bucket", "versioning", "default_encryption", "public_access", "object_lock", "lifecycle"),
    *("write_once", "checksums"),
)
_FIX = "`gs-backup doctor --fix-bucket` shows the rules and puts them."
_PUBLIC = "Switch Block Public Access on for the bucket, and remove the policy or list that lets strangers in."


def bucket_config(settings: DatabaseSettings, which: Which) -> S3StoreConfig | None:
    """The configuration of a store that is a bucket; None for a folder, and for an off-site store that is not there."""
    config = settings.stores.primary if which == "primary" else settings.stores.offsite
    return config if isinstance(config, S3StoreConfig) else None


def open_bucket(settings: DatabaseSettings, which: Which, client: ClientFactory | None = None) -> Bucket:
    """The bucket of a store that has one; errors as for `open_store`."""
    from gs_backup_assets.vault.bucket import Bucket
    from gs_backup_assets.vault.s3 import S3Store

    store = open_store(settings, which, client=client)
    assert isinstance(store, S3Store)
    return Bucket(store)


def examine_bucket(
    settings: DatabaseSettings, which: Which, *, client: ClientFactory | None = None
) -> tuple[Diagnosis, ...]:
    """Check the bucket of a store; none for a folder. Always the same checks, named `<which>_<check>`.

    What the server does not tell, or the role may not ask, is NOT_VERIFIED. Two small objects are written and removed.
    """
    config = bucket_config(settings, which)
    if config is None:
        return ()
    try:
        bucket = open_bucket(settings, which, client)
        bucket.reach()
    except BackupError as error:
        first = failed(f"{which}_bucket", f"{error.code}: {error.message}", hint=error.hint)
        return (first, *(not_verified(f"{which}_{check}", "The bucket cannot be used.") for check in CHECKS[1:]))
    probed = _probed(bucket)
    checks: dict[str, Callable[[str], Diagnosis]] = {
        "bucket": lambda name: passed(name, f"{bucket.store.describe()} is there, and its objects can be listed."),
        "versioning": lambda name: _versioning(name, bucket),
        "default_encryption": lambda name: _default_encryption(name, bucket, config, settings),
        "public_access": lambda name: _public_access(name, bucket, probed),
        "object_lock": lambda name: _object_lock(name, bucket.lock(), config),
        "lifecycle": lambda name: _lifecycle(name, bucket, config),
        "write_once": lambda name: _write_once(name, _known(probed)),
        "checksums": lambda name: _checksums(name, _known(probed)),
    }
    return tuple(_guarded(f"{which}_{check}", checks[check]) for check in CHECKS)


def _guarded(name: str, check: Callable[[str], Diagnosis]) -> Diagnosis:
    """A question that stays open is not verified, and never the end of the others."""
    try:
        return check(name)
    except BackupError as error:
        return not_verified(name, f"{error.code}: {error.message}", hint=error.hint)


def _probed(bucket: Bucket) -> Probed | BackupError:
    from gs_backup_assets.vault.bucket_probe import probe

    try:
        return probe(bucket)
    except BackupError as error:
        return error


def _known(probed: Probed | BackupError) -> Probed:
    if isinstance(probed, BackupError):
        raise probed
    return probed


def _versioning(name: str, bucket: Bucket) -> Diagnosis:
    status = bucket.versioning()
    if status == "Enabled":
        return passed(name, "Versions are kept: what somebody deletes or overwrites can be brought back.")
    return passed(
        name,
        f"Note: versions are not kept ({status.lower()}): an object that somebody deletes is gone for good.",
        hint=f"Recommended: `aws s3api put-bucket-versioning --bucket {bucket.store.bucket} --versioning-configuration"
        " Status=Enabled`, then `gs-backup doctor --fix-bucket`, so that old versions go after some weeks.",
    )


def _default_encryption(name: str, bucket: Bucket, config: S3StoreConfig, settings: DatabaseSettings) -> Diagnosis:
    algorithm = bucket.default_encryption()
    if algorithm is not None:
        return passed(name, f"The server encrypts every new object on its disks ({algorithm}).")
    if config.sse is not None:
        return passed(name, f"The server has no default encryption, but `sse` asks for {config.sse} with every object.")
    if settings.encryption is not None:
        words = "The server does not encrypt by default; dumps are encrypted before they leave this machine."
        return passed(
            name, words, ["manifests and proofs are not: names of tables, counts, keys of rows that break rules"]
        )
    return passed(
        name,
        "Note: the server does not encrypt by default: who gets at its disks can read the backups.",
        hint="Set `encryption` in backup.yaml, or `sse: AES256` for this store, or the bucket's default encryption.",
    )


def _public_access(name: str, bucket: Bucket, probed: Probed | BackupError) -> Diagnosis:
    """Public when any one of several answers says so; not public only when all of them were given."""
    open_questions: list[BackupError] = []

    def told(question: Callable[[], bool]) -> bool:
        try:
            return question()
        except BackupError as error:
            open_questions.append(error)
            return False

    try:
        block = bucket.blocked_access()
    except BackupError as error:
        block, open_questions = None, [error]
    if block is not None and block.complete:
        return passed(name, "Public access is blocked, whatever a policy or an access control list may say.")
    ways = [
        ("a request without credentials reads an object", lambda: _known(probed).lets_strangers_read),
        ("a request without credentials lists the objects", bucket.strangers_list),
        (
            "the bucket's policy is public",
            lambda: not (block and block.restricts_policies) and bucket.has_public_policy(),
        ),
        (
            "the bucket's access control list names everybody",
            lambda: not (block and block.ignores_acls) and bucket.has_public_acl(),
        ),
    ]
    public = [words for words, question in ways if told(question)]
    if public:
        return failed(name, "The backups are public: everything in the database can be read.", public, _PUBLIC)
    if open_questions:
        words = "Nothing was seen that makes the bucket public, but not everything could be asked."
        reasons = [f"{error.code}: {error.message} {error.hint}" for error in open_questions]
        return not_verified(name, words, list(dict.fromkeys(reasons)))
    words = "Note: the bucket is not public, but nothing stops a policy that would make it so."
    return passed(name, words, hint="Recommended: switch all four settings of Block Public Access on for the bucket.")


def _object_lock(name: str, lock: LockSettings | None, config: S3StoreConfig) -> Diagnosis:
    days = config.object_lock_days
    if lock is None and days is not None:
        return failed(
            name,
            f"object_lock_days is {days}, but the bucket has no object lock: it refuses every object of a backup.",
            hint="Make a bucket with object lock (at most servers only a new one can have it), or remove the setting.",
        )
    if lock is None:
        return passed(
            name,
            "Note: the bucket has no object lock: who may delete, or steals the credentials, can delete every backup.",
            hint="Recommended off-site: a bucket with object lock, and object_lock_days in backup.yaml.",
        )
    details = []
    if lock.default_days:
        details.append(
            f"the bucket locks every object for {counted(lock.default_days, 'day')} ({lock.default_mode}) by itself, "
            "holds and wrapped keys too: what is removed of them stays until then as an old version"
        )
    if days is not None:
        mode = config.object_lock_mode
        who = "nobody" if mode == "COMPLIANCE" else "nobody without the right s3:BypassGovernanceRetention"
        words = f"Backups are locked for {counted(days, 'day')} ({mode}): {who} can delete them before."
        return passed(name, words, details)
    if lock.default_days:
        return passed(name, "Backups are locked by the bucket's own rule.", details)
    return passed(
        name,
        "Note: the bucket has object lock, but nothing is locked: object_lock_days is not set.",
        hint="Set object_lock_days for this store, such as 30.",
    )


def _lifecycle(name: str, bucket: Bucket, config: S3StoreConfig) -> Diagnosis:
    lifecycle: Lifecycle = bucket.lifecycle()
    wanted = bucket_rules.recommended(config, versioned=bucket.versioning() != "Off")
    prefix = bucket_rules.below(config)
    deleting = [bucket_rules.sentence(rule) for rule in bucket_rules.expiring(lifecycle.rules, prefix)]
    if deleting:
        hint = "Remove these rules from the bucket: what goes is for retention to decide, which keeps what is proven."
        words = "Backups are deleted on their age alone, the last good one too."
        return failed(name, words, deleting, hint)
    new = bucket_rules.merged(lifecycle.rules, wanted, prefix)
    details = [line for line in bucket_rules.difference(lifecycle.rules, new) if not line.startswith("  ")]
    if bucket_rules.transitions(lifecycle.rules, prefix) != bucket_rules.transitions(wanted, prefix):
        words = "The bucket does not move objects to colder classes as `transitions` in backup.yaml says."
        return failed(name, words, details, _FIX)
    late = [
        f"{move.storage_class}: after {move.days} days instead of {move.wanted_days}, S3's minimum"
        for move in bucket_rules.moves(config)
        if move.days != move.wanted_days
    ]
    archiving = bucket_rules.archiving((*lifecycle.rules, *wanted), prefix)
    archived = list(dict.fromkeys(bucket_rules.sentence(rule) for rule in archiving))
    slow = [f"what this archives cannot be restored at once: {sentence}" for sentence in archived]
    if details:
        words = "Note: the bucket lacks rules that keep it tidy: parts of broken uploads and old versions cost money."
        return passed(name, words, [*details, *slow, *late], _FIX)
    if archived:
        words = "Note: the rules are as recommended, but archived backups cannot be restored at once."
        hint = "Bringing objects back takes up to 12 hours from GLACIER, up to 48 from DEEP_ARCHIVE: docs/offsite.md."
        return passed(name, words, [*archived, *late], hint)
    return passed(name, "Unfinished uploads and old versions are cleared up, and nothing deletes on age alone.", late)


def _write_once(name: str, probed: Probed) -> Diagnosis:
    left = _left(probed)
    if probed.writes_once:
        return passed(name, "A second object under the same name is refused: nothing is overwritten.", left)
    return failed(
        name,
        "The server ignores the condition If-None-Match: a second object silently replaces the first.",
        left,
        "Update the server, or use another: here two runs, or a mistake, can overwrite a backup.",
    )


def _checksums(name: str, probed: Probed) -> Diagnosis:
    if probed.tells == "claimed":
        return failed(
            name,
            "The server repeats the SHA-256 that the writer claimed without looking at the bytes.",
            hint="Copies seem equal although they may not be. Use another server, or always read copies back.",
        )
    read_back = "the comparison of copies reads every byte back, which takes longer and may cost something"
    details = [read_back] if probed.tells == "nothing" else []
    if not probed.refuses_damage:
        words = "Note: the server does not look at the SHA-256 of what arrives: damage on the way shows only later."
        return passed(name, words, details, "Update the server, if there is one that checks x-amz-checksum-sha256.")
    if details:
        words = "Note: the server refuses damaged bytes, but does not tell an object's SHA-256."
        return passed(name, words, details, "Nothing needs to be done; a server that keeps SHA-256 is quicker.")
    return passed(name, "The server refuses bytes that do not fit their SHA-256, and tells it of every object.")


def _left(probed: Probed) -> list[str]:
    return [f"{key} could not be removed: allow s3:DeleteObject below .doctor-*" for key in probed.left]
