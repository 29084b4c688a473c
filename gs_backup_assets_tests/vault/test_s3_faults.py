"""Bytes that are damaged, cut off or exchanged on their way to S3 and back, and servers that are busy, stuck, dead."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest

from gs_backup_assets.vault.pipeline import Hashing, drain
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.s3_client import ATTEMPTS
from gs_backup_assets.vault.s3_requests import PAUSES
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.faults import INTERNAL_ERROR, SLOW_DOWN, TOO_MANY, Answer, Break, Proxy, proxy_before
from gs_backup_assets_tests.s3_server import S3Server, running
from gs_backup_assets_tests.vault.s3_parts import (
    DATA,
    KEY,
    LONG,
    RANGES,
    SMALL,
    assert_nothing_is_there,
    code_of,
    hasty_store,
    put,
    read,
    resume_sends_only_what_is_missing,
    unfinished,
)


class TestDamageOnTheWay:
    @pytest.mark.parametrize(
        "data, pattern", [(SMALL, KEY), (DATA, r"partNumber=2$")], ids=["one part", "second of many"]
    )
    def test_a_flipped_byte_on_the_way_there_is_found_and_sent_again(
        self, store: S3Store, proxy: Proxy, data: bytes, pattern: str
    ) -> None:
        proxy.on("PUT", pattern, Break("flip", "request", 1000))
        put(store, data)
        assert proxy.count("PUT", pattern) == 2
        assert read(store) == data

    @pytest.mark.parametrize(
        "data, pattern", [(SMALL, KEY), (DATA, r"partNumber=2$")], ids=["one part", "second of many"]
    )
    def test_a_way_that_always_damages_is_told(
        self, store: S3Store, s3_server: S3Server, proxy: Proxy, data: bytes, pattern: str
    ) -> None:
        proxy.on("PUT", pattern, Break("flip", "request", 1000), times=None)
        assert code_of(lambda: put(store, data)) == "TRANSFER_DAMAGED"
        assert_nothing_is_there(s3_server, store.bucket)

    @pytest.mark.parametrize("answer", [Answer(400, "BadDigest"), Answer(409, "ConditionalRequestConflict")], ids=repr)
    def test_answers_that_are_worth_another_try(self, store: S3Store, proxy: Proxy, answer: Answer) -> None:
        """Over TLS a damaged body is a BadDigest; a conflict is Amazon's word for two writers at the same moment."""
        proxy.on("PUT", KEY, answer, times=2)
        put(store, SMALL)
        proxy.heal()
        proxy.on("POST", r"\?uploadId", answer, times=2)
        store.put(BytesIO(DATA), "shop/2.dat", size=len(DATA))
        assert read(store, "shop/2.dat") == DATA

    @pytest.mark.parametrize("number", range(RANGES))
    @pytest.mark.parametrize("at", [None, 0, 3], ids=["before", "empty", "middle"])
    def test_a_download_that_breaks_goes_on(self, there: S3Store, proxy: Proxy, number: int, at: int | None) -> None:
        """At any range, before its answer, before its first byte or in its middle."""
        proxy.on("GET", KEY, Break("close", "response", at), skip=number)
        assert read(there) == LONG
        assert proxy.count("GET", KEY) == RANGES + 1

    def test_a_download_that_always_breaks_is_told(self, there: S3Store, proxy: Proxy) -> None:
        proxy.on("GET", KEY, Break("close", "response", 4), skip=1, times=None)
        with there.open(KEY) as stream:
            for _ in range(2):  # whoever reads on is told again, and never given what comes behind
                assert code_of(lambda: drain(stream)) == "STORE_UNAVAILABLE"

    @pytest.mark.parametrize("number", range(RANGES))
    def test_a_flipped_byte_on_the_way_back_is_found_by_the_digest(
        self, there: S3Store, proxy: Proxy, number: int
    ) -> None:
        proxy.on("GET", KEY, Break("flip", "response", 3), skip=number)
        with there.open(KEY) as stream:
            source = Hashing(stream)
            drain(source)
        assert source.size == len(LONG)
        assert source.sha256 != hashlib.sha256(LONG).hexdigest()

    def test_an_object_that_is_replaced_while_it_is_read(self, store: S3Store, s3_server: S3Server) -> None:
        many = LONG * 3
        put(store, many)
        with store.open(KEY) as stream:
            assert stream.read(10) == LONG[:10]
            s3_server.client().put_object(Bucket=store.bucket, Key=KEY, Body=bytes(len(many)))
            assert code_of(stream.read) == "OBJECT_CHANGED"

    def test_an_object_that_is_removed_while_it_is_read(self, store: S3Store) -> None:
        put(store, LONG * 3)
        with store.open(KEY) as stream:
            assert stream.read(10) == LONG[:10]
            store.delete(KEY)
            assert code_of(stream.read) == "OBJECT_MISSING"


class TestServersThatAreBusy:
    @pytest.mark.parametrize("answer", [SLOW_DOWN, INTERNAL_ERROR, TOO_MANY], ids=lambda answer: answer.code)
    def test_every_kind_of_request_passes_after_a_refusal(self, store: S3Store, proxy: Proxy, answer: Answer) -> None:
        for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
            proxy.on(method, "", answer)
        put(store)
        assert store.exists(KEY)
        assert read(store) == DATA
        assert list(keys(store, "shop")) == [KEY]
        store.delete_tree("shop")
        assert list(keys(store, "")) == []

    def test_endless_refusals_end_with_a_code_in_bounded_time(
        self, store: S3Store, s3_server: S3Server, proxy: Proxy
    ) -> None:
        """Six tries with pauses of up to 1, 2, 4, 8 and 16 seconds; all kinds of requests side by side here."""
        put(s3_server.store(store.bucket))
        store.pauses = PAUSES
        nobody = s3_server.store(store.bucket, endpoint="http://127.0.0.1:9")
        for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
            proxy.on(method, "", SLOW_DOWN, times=None)
        actions: list[Callable[[], object]] = [
            lambda: store.put_bytes(SMALL, "shop/small"),
            lambda: store.put_bytes(DATA, "shop/large"),
            lambda: store.open(KEY),
            lambda: store.exists(KEY),
            lambda: store.own_checksum(KEY),
            lambda: store.folders("shop"),
            lambda: store.delete(KEY),
            lambda: store.sweep_uploads("shop", None),  # type: ignore[arg-type]
            lambda: nobody.put_bytes(SMALL, "shop/small"),
        ]
        started = time.monotonic()
        with ThreadPoolExecutor(len(actions)) as pool:
            assert list(pool.map(code_of, actions)) == ["STORE_UNAVAILABLE"] * len(actions)
        assert time.monotonic() - started < 45
        assert len(proxy.seen) == (len(actions) - 1) * ATTEMPTS
        assert list(keys(s3_server.store(store.bucket), "")) == [KEY]

    def test_a_server_that_stalls_is_asked_again(self, s3_server: S3Server, bucket: str, proxy: Proxy) -> None:
        """The store of this test waits three seconds for an answer; the program's own a minute."""
        store = hasty_store(s3_server.config(bucket, endpoint=proxy.endpoint), patience=3)
        proxy.on("PUT", r"partNumber=2$", Break("stall", "request", 1000))
        assert code_of(lambda: put(store, resume=True)) == "STORE_UNAVAILABLE"
        resume_sends_only_what_is_missing(s3_server, s3_server.store(bucket, endpoint=proxy.endpoint), proxy)
        proxy.heal()
        proxy.on("GET", KEY, Break("stall", "response", 4), skip=1)
        store.pauses = (0.0,)
        assert read(store) == DATA


class TestServersThatDie:
    """Freshly started again, a server may not be ready at once: then the program's own store asks until it is."""

    @pytest.mark.parametrize("resume", [False, True], ids=["from the beginning", "resumed"])
    def test_in_the_middle_of_an_upload(self, resume: bool) -> None:
        with running(S3Server) as server, proxy_before(server.endpoint) as proxy:
            bucket = server.bucket()
            hasty = hasty_store(server.config(bucket, endpoint=proxy.endpoint))
            proxy.on("PUT", r"partNumber=2$", Break("pass", "request", 1_000_000, meanwhile=server.kill))
            assert code_of(lambda: put(hasty, resume=resume)) == "STORE_UNAVAILABLE"
            server.start()
            store = server.store(bucket, endpoint=proxy.endpoint)
            assert list(keys(store, "")) == []
            if resume:
                resume_sends_only_what_is_missing(server, store, proxy)
                return
            assert len(unfinished(server, bucket)) == 1, "nobody was there to end it"
            time.sleep(1.1)  # times of S3 have no fractions
            store.delete_tree("shop")
            assert_nothing_is_there(server, bucket)
            put(store)
            assert read(store) == DATA

    def test_in_the_middle_of_a_download(self) -> None:
        with running(S3Server) as server, proxy_before(server.endpoint) as proxy:
            bucket = server.bucket()
            put(server.store(bucket), LONG)
            hasty = hasty_store(server.config(bucket, endpoint=proxy.endpoint))
            proxy.on("GET", KEY, Break("close", "response", 4, meanwhile=server.kill), skip=2)
            assert code_of(lambda: read(hasty)) == "STORE_UNAVAILABLE"
            server.start()
            assert read(server.store(bucket)) == LONG

    def test_and_come_back_while_requests_are_repeated(self) -> None:
        """A restart takes a second or two; the program asks for longer than that."""
        with running(S3Server) as server, proxy_before(server.endpoint) as proxy:
            store = server.store(server.bucket(), endpoint=proxy.endpoint)

            def restart() -> None:
                server.kill()
                server.start()

            proxy.on("PUT", r"partNumber=2$", Break("pass", "request", 1_000_000, meanwhile=restart))
            put(store)
            assert read(store) == DATA
