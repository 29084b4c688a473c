"""The recommended lifecycle rules, as pure functions: others' rules survive, ours are replaced, S3's limits hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.doctor.bucket_rules import (
    ARCHIVED_ABOVE_BYTES,
    OURS,
    archiving,
    difference,
    expiring,
    is_ours,
    merged,
    moves,
    recommended,
    same,
    sentence,
)
from gs_backup_assets.vault.bucket import Rule


def config(prefix: str = "prod", **changes: Any) -> S3StoreConfig:
    return S3StoreConfig(**{"kind": "s3", "bucket": "backups", "prefix": prefix, **changes})


def days(**after: int) -> dict[str, timedelta]:
    return {name: timedelta(days=count) for name, count in after.items()}


# Rules as others write them, in every notation that S3 takes.
_names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=12)
_prefixes = st.sampled_from(["", "prod", "prod/", "prod/shop/", "logs/", "products/", "staging/"])
_tags = st.fixed_dictionaries({"Key": _names, "Value": _names})
_filters = st.one_of(
    st.fixed_dictionaries({"Filter": st.fixed_dictionaries({"Prefix": _prefixes})}),
    st.fixed_dictionaries({"Prefix": _prefixes}),
    st.fixed_dictionaries({"Filter": st.fixed_dictionaries({"Tag": _tags})}),
    st.fixed_dictionaries(
        {
            "Filter": st.fixed_dictionaries(
                {"And": st.fixed_dictionaries({"Prefix": _prefixes, "Tags": st.lists(_tags)})}
            )
        }
    ),
    st.just({"Filter": {}}),
)
_actions = st.one_of(
    st.fixed_dictionaries({"Expiration": st.fixed_dictionaries({"Days": st.integers(1, 4000)})}),
    st.just({"Expiration": {"ExpiredObjectDeleteMarker": True}}),
    st.fixed_dictionaries(
        {"NoncurrentVersionExpiration": st.fixed_dictionaries({"NoncurrentDays": st.integers(1, 90)})}
    ),
    st.just({"Transitions": [{"Days": 90, "StorageClass": "GLACIER"}]}),
    st.just({"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}}),
)
_theirs = st.builds(
    lambda name, where, what, on: {**({"ID": name} if name else {}), "Status": on, **where, **what},
    st.none() | _names,
    _filters,
    _actions,
    st.sampled_from(["Enabled", "Disabled"]),
)
_configs = st.builds(
    config,
    st.sampled_from(["", "prod", "prod/shop", "staging"]),
    transitions=st.sampled_from([{}, days(GLACIER=90), days(STANDARD_IA=30, DEEP_ARCHIVE=180)]),
    object_lock_days=st.none() | st.integers(1, 400),
)


@given(st.lists(_theirs, max_size=6), _configs, st.booleans())
def test_rules_of_others_survive_unchanged_and_twice_changes_nothing(
    theirs: list[Rule], mine: S3StoreConfig, versioned: bool
) -> None:
    prefix = f"{mine.prefix}/" if mine.prefix else ""
    wanted = recommended(mine, versioned=versioned)
    once = merged(theirs, wanted, prefix)
    assert [rule for rule in once if not is_ours(rule, prefix)] == theirs
    assert merged(once, wanted, prefix) == once
    assert same(reversed(once), once)


@given(st.lists(_theirs, max_size=3), _configs, _configs)
def test_ours_are_replaced_by_what_the_configuration_says_now(
    theirs: list[Rule], before: S3StoreConfig, now: S3StoreConfig
) -> None:
    """Also those of a setting that was taken out; those of another prefix in the same bucket are others' rules."""
    there = merged(theirs, recommended(before, versioned=True), f"{before.prefix}/" if before.prefix else "")
    new = merged(there, recommended(now, versioned=False), f"{now.prefix}/" if now.prefix else "")
    mine = [rule for rule in new if str(rule.get("ID", "")).startswith(OURS)]
    kept = [] if before.prefix == now.prefix else list(recommended(before, versioned=True))
    assert mine == [*kept, *recommended(now, versioned=False)]
    ids = [rule["ID"] for rule in new if "ID" in rule and rule not in theirs]
    assert len(ids) == len(set(ids))


@given(_configs, st.booleans())
def test_nothing_of_ours_deletes_an_object_that_is_there(mine: S3StoreConfig, versioned: bool) -> None:
    assert expiring(recommended(mine, versioned=versioned), mine.prefix) == ()


def test_what_is_recommended_for_a_bucket_with_versions_and_a_lock() -> None:
    uploads, versions = recommended(config(object_lock_days=90), versioned=True)
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert versions["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}, "no version goes before its lock ends"
    assert versions["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert all(rule["Filter"] == {"Prefix": "prod/"} for rule in (uploads, versions))
    (_, versions) = recommended(config(object_lock_days=7), versioned=True)
    assert versions["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert len(recommended(config(), versioned=False)) == 1


def test_small_objects_stay_where_they_can_be_read_at_once() -> None:
    """A manifest in GLACIER would make the whole catalogue unreadable."""
    rule = recommended(config(transitions=days(GLACIER=90)), versioned=False)[-1]
    assert rule["Filter"] == {"And": {"Prefix": "prod/", "ObjectSizeGreaterThan": ARCHIVED_ABOVE_BYTES}}
    assert rule["Transitions"] == [{"Days": 90, "StorageClass": "GLACIER"}]
    (_, whole_bucket) = recommended(config("", transitions=days(DEEP_ARCHIVE=90)), versioned=False)
    assert whole_bucket["Filter"] == {"ObjectSizeGreaterThan": ARCHIVED_ABOVE_BYTES}
    (_, instant) = recommended(config(transitions=days(GLACIER_IR=90)), versioned=False)
    assert instant["Filter"] == {"Prefix": "prod/"}


@pytest.mark.parametrize(
    ("wanted", "days_found"),
    [
        (days(STANDARD_IA=7), [30]),
        (days(ONEZONE_IA=0), [30]),
        (days(GLACIER=0), [0]),
        (days(GLACIER_IR=10, DEEP_ARCHIVE=10), [10, 11]),
        (days(STANDARD_IA=30, GLACIER=45), [30, 60]),
        (days(STANDARD_IA=30, GLACIER=90, DEEP_ARCHIVE=365), [30, 90, 365]),
        ({"GLACIER": timedelta(hours=1)}, [1]),
    ],
)
def test_minimums_of_s3_are_respected(wanted: dict[str, timedelta], days_found: list[int]) -> None:
    assert [move.days for move in moves(config(transitions=wanted))] == days_found


@pytest.mark.parametrize(
    ("stored_in", "wanted"),
    [
        ("STANDARD", days(GLACIER=30, STANDARD_IA=60)),
        ("STANDARD", days(ONEZONE_IA=30, GLACIER_IR=90)),
        ("STANDARD", days(DEEP_ARCHIVE=30, GLACIER=60)),
        ("STANDARD_IA", days(STANDARD_IA=30)),
        ("GLACIER_IR", days(INTELLIGENT_TIERING=30)),
    ],
)
def test_an_order_that_s3_does_not_know_is_an_error(stored_in: str, wanted: dict[str, timedelta]) -> None:
    with pytest.raises(ConfigError, match="TRANSITIONS_INVALID") as caught:
        moves(config(storage_class=stored_in, transitions=wanted))
    assert "DEEP_ARCHIVE" in caught.value.hint


_DELETES = {"Status": "Enabled", "Expiration": {"Days": 30}}


@pytest.mark.parametrize(
    ("rule", "hits"),
    [
        ({**_DELETES, "Filter": {"Prefix": ""}}, True),
        ({**_DELETES, "Filter": {}}, True),
        ({**_DELETES, "Prefix": "pro"}, True),
        ({**_DELETES, "Filter": {"Prefix": "prod/shop/logical/"}}, True),
        ({**_DELETES, "Filter": {"And": {"Prefix": "prod/", "ObjectSizeGreaterThan": 9}}}, True),
        ({**_DELETES, "Filter": {"ObjectSizeLessThan": 9}}, True),
        ({**_DELETES, "Filter": {"Prefix": "logs/"}}, False),
        ({**_DELETES, "Filter": {"Prefix": "production/"}}, False),
        ({**_DELETES, "Filter": {"Tag": {"Key": "temporary", "Value": "yes"}}}, False),
        ({**_DELETES, "Filter": {"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}}}, False),
        ({**_DELETES, "Filter": {"Prefix": ""}, "Status": "Disabled"}, False),
        ({"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Date": "2026-11-22"}}, True),
        ({"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}}, False),
        ({"Status": "Enabled", "Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, False),
    ],
)
def test_rules_that_delete_on_age_alone_are_found(rule: Rule, hits: bool) -> None:
    assert expiring([rule], "prod/") == ((rule,) if hits else ())


def test_rules_that_archive_are_found() -> None:
    moving = {"Status": "Enabled", "Filter": {"Prefix": ""}, "Transitions": [{"Days": 9, "StorageClass": "GLACIER"}]}
    instant = {**moving, "Transitions": [{"Days": 9, "StorageClass": "GLACIER_IR"}]}
    assert archiving([moving, instant, {**moving, "Filter": {"Prefix": "logs/"}}], "prod/") == (moving,)


def test_the_difference_reads_like_sentences() -> None:
    theirs = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 1}}
    ours = recommended(config(transitions=days(GLACIER=30)), versioned=True)
    lines = difference([theirs], merged([theirs], ours, "prod/"))
    assert lines[0] == "  logs: below logs/: DELETE objects after 1 day"
    assert [line[:2] for line in lines[1:]] == ["+ "] * 3
    assert lines[1].endswith("below prod/: end uploads that are not completed after 7 days")
    assert lines[3].endswith("above 17825792 bytes: move objects to GLACIER after 30 days")
    assert difference(ours, ours[:1])[1].startswith("- ")


@given(_theirs)
def test_every_rule_has_a_sentence(rule: Rule) -> None:
    said = sentence(rule)
    assert not said.endswith(": nothing") and ("switched off" in said) == (rule["Status"] == "Disabled")
