"""Uploads to S3, broken at every part and in every way: nothing is left, or only what is missing is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.faults import ANSWER_LOST, NEVER_ARRIVES, Answer, Break, Proxy
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.s3_server import S3Server
from gs_backup_assets_tests.vault.s3_parts import (
    DATA,
    KEY,
    PART,
    PARTS,
    SMALL,
    assert_nothing_is_there,
    code_of,
    put,
    read,
    resume_sends_only_what_is_missing,
    sent,
    unfinished,
)


class Breaking(BytesIO):
    """A source that fails after so many bytes, once `ready`."""

    def __init__(
        self, data: bytes, size: int, error: BaseException, ready: Callable[[], object] = lambda: True
    ) -> None:
        super().__init__(data[:size])
        self._error = error
        self._ready = ready

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            wait_until(self._ready, what="the parts before are there")
            raise self._error
        return data


class TestUploadsThatBreakOff:
    @pytest.mark.parametrize(
        "whole_parts, error", [(0, RuntimeError()), (1, SystemExit()), (2, RuntimeError()), (2, KeyboardInterrupt())]
    )
    def test_a_source_that_fails_leaves_nothing(
        self, store: S3Store, s3_server: S3Server, whole_parts: int, error: BaseException
    ) -> None:
        with pytest.raises(type(error)):
            store.put(Breaking(DATA, whole_parts * PART + 1000, error), KEY, size=len(DATA))
        assert_nothing_is_there(s3_server, store.bucket)

    @pytest.mark.parametrize("whole_parts", range(2, PARTS))
    def test_a_source_that_fails_is_gone_on_with(
        self, store: S3Store, s3_server: S3Server, proxy: Proxy, whole_parts: int
    ) -> None:
        source = Breaking(
            DATA,
            whole_parts * PART,
            RuntimeError(),
            lambda: sum(map(len, unfinished(s3_server, store.bucket))) == whole_parts,
        )
        with pytest.raises(RuntimeError):
            store.put(source, KEY, size=len(DATA), resume=True)
        assert list(keys(store, "")) == []
        (present,) = unfinished(s3_server, store.bucket)
        assert present == dict.fromkeys(range(1, whole_parts + 1), PART)
        resume_sends_only_what_is_missing(s3_server, store, proxy)

    @pytest.mark.parametrize("number", range(1, PARTS + 1))
    @pytest.mark.parametrize("resume", [False, True], ids=["from the beginning", "resumed"])
    def test_a_connection_that_breaks_in_a_part(
        self, hasty: S3Store, s3_server: S3Server, proxy: Proxy, number: int, resume: bool
    ) -> None:
        proxy.on("PUT", rf"partNumber={number}$", Break("close", "request", 3))
        assert code_of(lambda: put(hasty, resume=resume)) == "STORE_UNAVAILABLE"
        if resume:
            assert list(keys(hasty, "")) == []
            resume_sends_only_what_is_missing(s3_server, hasty, proxy)
        else:
            assert_nothing_is_there(s3_server, hasty.bucket)
            put(hasty)
            assert read(hasty) == DATA

    @pytest.mark.parametrize("when", ["begin", "complete"])
    @pytest.mark.parametrize("fault", [NEVER_ARRIVES, ANSWER_LOST], ids=["request lost", "answer lost"])
    def test_begin_and_completion_break(
        self, store: S3Store, s3_server: S3Server, proxy: Proxy, when: str, fault: Break
    ) -> None:
        """botocore repeats them. A completion that had its effect is found to be ours."""
        proxy.on("POST", r"\?uploads" if when == "begin" else r"\?uploadId", fault)
        put(store)
        assert read(store) == DATA
        # The answer with the first upload's id was lost: only a sweep can find it.
        left = unfinished(s3_server, store.bucket)
        assert left == ([{}] if (when, fault) == ("begin", ANSWER_LOST) else [])

    def test_parts_that_are_already_there_are_not_trusted_by_their_number(
        self, hasty: S3Store, s3_server: S3Server, proxy: Proxy
    ) -> None:
        """Between the tries the file has changed in its second part."""
        proxy.on("PUT", rf"partNumber={PARTS}$", NEVER_ARRIVES)
        assert code_of(lambda: put(hasty, resume=True)) == "STORE_UNAVAILABLE"
        (present,) = unfinished(s3_server, hasty.bucket)
        assert set(present) == set(range(1, PARTS))
        proxy.heal()
        changed = DATA[: PART + 10] + b"!" + DATA[PART + 11 :]
        put(hasty, changed, resume=True)
        assert sent(proxy) == [2, PARTS]
        assert read(hasty) == changed

    def test_an_upload_of_a_longer_file_is_gone_on_with_by_a_shorter_one(
        self, hasty: S3Store, s3_server: S3Server, proxy: Proxy
    ) -> None:
        proxy.on("PUT", rf"partNumber={PARTS}$", NEVER_ARRIVES)
        assert code_of(lambda: put(hasty, resume=True)) == "STORE_UNAVAILABLE"
        proxy.heal()
        put(hasty, DATA[: PART + 1], resume=True)
        assert sent(proxy) == [2]
        assert read(hasty) == DATA[: PART + 1]
        assert unfinished(s3_server, hasty.bucket) == []

    def test_an_upload_that_somebody_ends_in_the_middle(
        self, hasty: S3Store, s3_server: S3Server, proxy: Proxy
    ) -> None:
        """The object is not there and nobody says so; the next try begins anew."""
        ended = threading.Event()

        def end() -> None:
            if not ended.is_set():
                ended.set()
                s3_server.store(hasty.bucket).delete_tree("shop")

        proxy.on("PUT", r"partNumber=3$", Break("pass", "request", meanwhile=lambda: (time.sleep(1.1), end())))
        assert code_of(lambda: put(hasty, resume=True)) == "STORE_UNAVAILABLE"
        assert not hasty.exists(KEY)
        proxy.heal()
        put(hasty, resume=True)
        assert read(hasty) == DATA

    @pytest.mark.parametrize("begun", [True, False], ids=["one upload", "one each"])
    def test_two_at_once(self, hasty: S3Store, s3_server: S3Server, proxy: Proxy, begun: bool) -> None:
        if begun:
            proxy.on("PUT", r"partNumber=3$", NEVER_ARRIVES)
            assert code_of(lambda: put(hasty, resume=True)) == "STORE_UNAVAILABLE"
        gate = threading.Barrier(2)

        def go_on(_: int) -> str:
            store = s3_server.store(hasty.bucket)
            gate.wait()
            try:
                put(store, resume=True)
            except StoreError as error:
                return error.code
            return "done"

        with ThreadPoolExecutor(2) as pool:
            outcomes = sorted(pool.map(go_on, range(2)))
        assert outcomes in (["done", "done"], ["OBJECT_EXISTS", "done"])
        assert read(hasty) == DATA
        assert unfinished(s3_server, hasty.bucket) == []

    @pytest.mark.parametrize("method, pattern", [("PUT", r"partNumber=3$"), ("POST", r"\?uploadId")], ids=str)
    def test_another_one_completes_the_upload_first(
        self, hasty: S3Store, s3_server: S3Server, proxy: Proxy, method: str, pattern: str
    ) -> None:
        """At a part or at the end. Amazon says that there is no such upload, SeaweedFS not before the end."""
        proxy.on("PUT", r"partNumber=3$", NEVER_ARRIVES)
        assert code_of(lambda: put(hasty, resume=True)) == "STORE_UNAVAILABLE"
        quick = s3_server.store(hasty.bucket)
        proxy.on(method, pattern, Answer(404, "NoSuchUpload", meanwhile=lambda: put(quick, resume=True)))
        if method == "PUT":
            assert code_of(lambda: put(hasty, resume=True)) == "OBJECT_EXISTS"
        else:
            put(hasty, resume=True)  # all bytes are known by then, and they are the same
        assert read(hasty) == DATA
        assert unfinished(s3_server, hasty.bucket) == []


class TestAnswersThatAreLost:
    def test_a_put_that_had_its_effect_counts(self, store: S3Store, proxy: Proxy) -> None:
        """The repeated request is told that the object is there: it is ours."""
        proxy.on("PUT", KEY, ANSWER_LOST)
        put(store, SMALL)
        assert proxy.count("PUT", KEY) == 2
        assert read(store) == SMALL

    @pytest.mark.parametrize("data", [SMALL, DATA], ids=["one part", "many parts"])
    def test_but_not_when_the_object_is_another(self, store: S3Store, proxy: Proxy, data: bytes) -> None:
        other = b"!" + data[1:]
        put(store, other)
        proxy.heal()
        method, pattern = ("PUT", KEY) if data is SMALL else ("POST", r"\?uploadId")
        proxy.on(method, pattern, ANSWER_LOST)
        assert code_of(lambda: put(store, data)) == "OBJECT_EXISTS"
        assert proxy.count(method, pattern) == 2
        assert read(store) == other

    def test_every_part_may_lose_its_answer_once(self, store: S3Store, s3_server: S3Server, proxy: Proxy) -> None:
        for number in range(1, PARTS + 1):
            proxy.on("PUT", rf"partNumber={number}$", ANSWER_LOST)
        put(store)
        assert sent(proxy) == sorted([*range(1, PARTS + 1)] * 2)
        assert read(store) == DATA
        assert unfinished(s3_server, store.bucket) == []
