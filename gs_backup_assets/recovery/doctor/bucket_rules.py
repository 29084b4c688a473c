"""The lifecycle rules that a bucket of backups should have, beside those of others; pure."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from gs_backup_assets.config_stores import ColdClass, S3StoreConfig
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.vault.bucket import Rule
from gs_backup_assets.words import counted

OURS = "gs-backup-"
UNFINISHED_DAYS = 7
OLD_VERSION_DAYS = 30
# What is archived cannot be read at once. Manifests, proofs, wrapped keys and segments of the write-ahead log must be
# (16 MiB before compression, and an envelope): they are smaller than this.
ARCHIVED_ABOVE_BYTES = 17 << 20
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})

# S3 moves objects down this list only ("Transitioning objects using Amazon S3 Lifecycle").
_CLASSES = (
    *("STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA"),
    *("GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"),
)
_INFREQUENT = frozenset({"STANDARD_IA", "ONEZONE_IA"})
_INFREQUENT_DAYS = 30
_NOT_BETWEEN = frozenset({("ONEZONE_IA", "GLACIER_IR")})


@dataclass(frozen=True)
class Move:
    """Into which class objects go, how many days after they were stored, and after how many the configuration wants."""

    storage_class: ColdClass
    days: int
    wanted_days: int


def moves(config: S3StoreConfig) -> tuple[Move, ...]:
    """The configured transitions in their order, each late enough for S3's minimums.

    Raises ConfigError (`TRANSITIONS_INVALID`) for an order that S3 does not know.
    """
    found: list[Move] = []
    before: str = config.storage_class
    earliest = 0
    wanted = sorted((_whole_days(after), _CLASSES.index(name), name) for name, after in config.transitions.items())
    for days, rank, name in wanted:
        if rank <= _CLASSES.index(before) or (before, name) in _NOT_BETWEEN:
            raise ConfigError(
                "TRANSITIONS_INVALID",
                f"transitions of s3://{config.bucket}/{config.prefix}: S3 moves nothing from {before} to {name}.",
                f"Objects go down this list only: {', '.join(_CLASSES)}; and from ONEZONE_IA not to GLACIER_IR.",
            )
        minimum = max(earliest, _INFREQUENT_DAYS if name in _INFREQUENT else 0)
        move = Move(name, max(days, minimum), days)
        found.append(move)
        before, earliest = name, move.days + (_INFREQUENT_DAYS if name in _INFREQUENT else 1)
    return tuple(found)


def _whole_days(after: timedelta) -> int:
    return -(-after // timedelta(days=1))


def recommended(config: S3StoreConfig, *, versioned: bool) -> tuple[Rule, ...]:
    """Our rules for a store: what was never completed and what was deleted goes; what is old moves as configured.

    None of them deletes an object that is there: retention decides on that. ConfigError as for `moves`.
    """
    prefix = below(config)
    rules: list[dict[str, Any]] = [
        {
            "ID": _id("unfinished-uploads", prefix),
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
        }
    ]
    if versioned:
        days = max(OLD_VERSION_DAYS, config.object_lock_days or 0)
        rules.append(
            {
                "ID": _id("deleted-versions", prefix),
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
                "NoncurrentVersionExpiration": {"NoncurrentDays": days},
            }
        )
    if config.transitions:
        rules.append(
            {
                "ID": _id("colder-classes", prefix),
                "Status": "Enabled",
                "Filter": _archived_only(prefix) if ARCHIVES & config.transitions.keys() else {"Prefix": prefix},
                "Transitions": [{"Days": move.days, "StorageClass": move.storage_class} for move in moves(config)],
            }
        )
    return tuple(rules)


def _archived_only(prefix: str) -> dict[str, Any]:
    size = {"ObjectSizeGreaterThan": ARCHIVED_ABOVE_BYTES}
    return {"And": {"Prefix": prefix, **size}} if prefix else size


def below(config: S3StoreConfig) -> str:
    """What the keys of all objects of a store begin with."""
    return f"{config.prefix}/" if config.prefix else ""


def _id(kind: str, prefix: str) -> str:
    """Stores below several prefixes of one bucket have rules of their own, and ids in a bucket are unique."""
    return f"{OURS}{kind}" + (f"-{hashlib.sha256(prefix.encode()).hexdigest()[:8]}" if prefix else "")


def merged(present: Sequence[Rule], wanted: Sequence[Rule], prefix: str) -> tuple[Rule, ...]:
    """All rules of the bucket as they should be: those of others as they are and where they are, then ours anew."""
    ids = {rule["ID"] for rule in wanted}
    others = [rule for rule in present if not is_ours(rule, prefix) and rule.get("ID") not in ids]
    return (*others, *wanted)


def is_ours(rule: Rule, prefix: str) -> bool:
    """Whether this software made a rule for the store below `prefix`."""
    return str(rule.get("ID", "")).startswith(OURS) and prefix_of(rule) == prefix


def same(one: Iterable[Rule], other: Iterable[Rule]) -> bool:
    """Whether two sets of rules say the same; their order means nothing to S3."""
    return _canonical(one) == _canonical(other)


def _canonical(rules: Iterable[Rule]) -> list[str]:
    return sorted(as_json(rule) for rule in rules)


def as_json(rule: Rule | Sequence[Rule], indent: int | None = None) -> str:
    """Rules in S3's notation, as `aws s3api put-bucket-lifecycle-configuration` takes them."""
    return json.dumps(rule, sort_keys=True, indent=indent, default=lambda moment: moment.isoformat())


def expiring(rules: Sequence[Rule], prefix: str) -> tuple[Rule, ...]:
    """Rules in force that delete objects of the store on their age alone."""
    return tuple(
        rule for rule in _touching(rules, prefix) if not {"Days", "Date"}.isdisjoint(rule.get("Expiration", {}))
    )


def archiving(rules: Sequence[Rule], prefix: str) -> tuple[Rule, ...]:
    """Rules in force after which objects of the store cannot be read at once."""
    return tuple(
        rule
        for rule in _touching(rules, prefix)
        if any(move.get("StorageClass") in ARCHIVES for move in rule.get("Transitions", ()))
    )


def transitions(rules: Sequence[Rule], prefix: str) -> list[str]:
    """What our own rules move, in S3's notation: what the configuration says, when it is in force."""
    ours = [rule for rule in rules if is_ours(rule, prefix) and rule.get("Status") == "Enabled"]
    return _canonical(move for rule in ours for move in rule.get("Transitions", ()))


def _touching(rules: Sequence[Rule], prefix: str) -> list[Rule]:
    """Rules in force for any object below a prefix. Ours have no tags: a rule that asks for one is not for them."""
    return [
        rule
        for rule in rules
        if rule.get("Status") == "Enabled"
        and not _asks_for_tags(rule)
        and (prefix.startswith(prefix_of(rule)) or prefix_of(rule).startswith(prefix))
    ]


def _asks_for_tags(rule: Rule) -> bool:
    wanted = rule.get("Filter", {})
    return "Tag" in wanted or bool(wanted.get("And", {}).get("Tags"))


def prefix_of(rule: Rule) -> str:
    """What keys begin with that a rule is for; the old notation has it in the rule itself."""
    wanted = rule.get("Filter", {})
    found = wanted.get("Prefix") or wanted.get("And", {}).get("Prefix") or rule.get("Prefix") or ""
    return str(found)


def difference(present: Sequence[Rule], new: Sequence[Rule]) -> tuple[str, ...]:
    """What changes, rule by rule, in words: lines that begin with `- `, `+ `, or spaces for what stays."""
    before, after = [sentence(rule) for rule in present], [sentence(rule) for rule in new]
    return tuple(line for line in difflib.ndiff(before, after) if not line.startswith("?"))


def sentence(rule: Rule) -> str:
    """A rule in words."""
    where = f"below {prefix_of(rule)}" if prefix_of(rule) else "in the whole bucket"
    also = rule.get("Filter", {}).get("And", {}) or rule.get("Filter", {})
    if "ObjectSizeGreaterThan" in also:
        where += f", above {also['ObjectSizeGreaterThan']} bytes"
    if "ObjectSizeLessThan" in also:
        where += f", under {also['ObjectSizeLessThan']} bytes"
    if _asks_for_tags(rule):
        where += ", with certain tags"
    off = "" if rule.get("Status") == "Enabled" else " (switched off)"
    return f"{rule.get('ID') or 'a rule without a name'}{off}: {where}: {'; '.join(_actions(rule)) or 'nothing'}"


def _actions(rule: Rule) -> list[str]:
    said = []
    if days := rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"):
        said.append(f"end uploads that are not completed after {counted(days, 'day')}")
    expiration = rule.get("Expiration", {})
    if "Days" in expiration:
        said.append(f"DELETE objects after {counted(expiration['Days'], 'day')}")
    if "Date" in expiration:
        said.append(f"DELETE objects on {expiration['Date']}")
    if expiration.get("ExpiredObjectDeleteMarker"):
        said.append("remove delete markers with nothing behind them")
    if days := rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"):
        said.append(f"remove deleted and replaced versions after {counted(days, 'day')}")
    for move in rule.get("Transitions", ()):
        when = f"on {move['Date']}" if "Date" in move else f"after {counted(move.get('Days', 0), 'day')}"
        said.append(f"move objects to {move.get('StorageClass')} {when}")
    for move in rule.get("NoncurrentVersionTransitions", ()):
        when = counted(move.get("NoncurrentDays", 0), "day")
        said.append(f"move old versions to {move.get('StorageClass')} after {when}")
    return said
