"""Names, positions and headers of the write-ahead log, against real servers of every major."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import (
    DEFAULT_SEGMENT_BYTES,
    PAGE_BYTES,
    Lsn,
    Segment,
    Switch,
    parse_history,
    read_header,
    require_segment,
    segments_between,
    written_bytes,
)
from gs_backup_assets.postgres.wal_records import written_end
from gs_backup_assets.postgres.wal_sender import Line
from gs_backup_assets_tests.production import Production, production

SIZES = st.sampled_from([1 << 20, 16 << 20, 64 << 20, 1 << 30])


@given(value=st.integers(0, (1 << 64) - 1))
def test_a_position_is_read_as_it_is_written(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == Lsn(value)


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "x/0", " 0/0", "0/0 "])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no position"):
        Lsn.parse(text)


@given(timeline=st.integers(1, 0xFFFFFFFF), value=st.integers(0, (1 << 63) - 1), size=SIZES)
def test_a_segment_is_read_as_it_is_named(timeline: int, value: int, size: int) -> None:
    segment = Segment.at(Lsn(value), timeline, size)
    assert Segment.parse(segment.name, size) == segment
    assert segment.start.value <= value < segment.end.value
    assert segment.next.start == segment.end
    assert segment.next.name > segment.name


def test_segments_between_are_all_of_them() -> None:
    found = list(segments_between(Segment(1, 254), Segment(1, 257)))
    assert [s.name[8:] for s in found] == [
        "00000000000000FE",
        "00000000000000FF",
        "0000000100000000",
        "0000000100000001",
    ]


def test_histories_are_read_and_must_grow() -> None:
    text = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000028\tbefore # something\n"
    assert parse_history(text) == (Switch(1, Lsn.parse("0/3000000")), Switch(2, Lsn.parse("0/5000028")))
    for wrong in ("2\t0/3000000\tx\n1\t0/4000000\tx\n", "1\t0/3000000\tx\n2\t0/2000000\tx\n", "1\n", "x\t0/0\n"):
        with pytest.raises(ValueError):
            parse_history(wrong)


def test_a_line_names_the_file_of_every_place() -> None:
    line = Line(
        3, (Switch(1, Lsn(5 * DEFAULT_SEGMENT_BYTES + 40)), Switch(2, Lsn(7 * DEFAULT_SEGMENT_BYTES))), 16 << 20
    )
    assert [line.segment(n).timeline for n in range(4, 9)] == [1, 2, 2, 3, 3]
    assert [line.begin_of(t) for t in (1, 2, 3)] == [0, 5, 7]
    assert line.end_of(2) == Lsn(7 * DEFAULT_SEGMENT_BYTES) and line.end_of(3) is None
    assert Line(1, (), 16 << 20).segment(9) == Segment(1, 9)


@pytest.fixture(scope="module", params=[14, 15, 16, 17, 18], ids=lambda major: f"pg{major}")
def server(request: pytest.FixtureRequest) -> Iterator[Production]:
    with production(request.param) as server:
        server.bench("-i", "-s", "1")
        yield server


def current(server: Production) -> tuple[Segment, bytes, Lsn, str]:
    """The segment that is being written, its bytes, up to where it is flushed, and the cluster."""
    lsn, system = server.sql(
        "SELECT pg_current_wal_flush_lsn()::text, system_identifier::text FROM pg_control_system()"
    )[0]
    segment = Segment.at(Lsn.parse(str(lsn)), 1)
    return segment, (server.data / "pg_wal" / segment.name).read_bytes(), Lsn.parse(str(lsn)), str(system)


def test_a_header_without_a_size_is_none() -> None:
    """Nothing may divide by it: such a file is damaged, and said to be."""
    data = bytearray(40)
    data[2], data[37] = 2, PAGE_BYTES >> 8
    assert read_header(bytes(data)) is None
    data[35] = 1  # 16 MiB
    found = read_header(bytes(data))
    assert found is not None and found.segment_bytes == DEFAULT_SEGMENT_BYTES


def test_headers_of_every_major(server: Production) -> None:
    segment, data, _, system = current(server)
    header = read_header(data)
    assert header is not None
    assert header.major == server.toolchain.release.major
    assert (header.timeline, header.address, header.system_identifier) == (1, segment.start, system)
    assert require_segment(data, segment, system) == header
    for code, where, cluster in (
        ("WAL_FOREIGN", segment, "42"),
        ("WAL_MISPLACED", segment.next, system),
        ("WAL_MISPLACED", Segment(1, segment.number - 1), system),
    ):
        with pytest.raises(StoreError, match=code):
            require_segment(data, where, cluster)
    for damaged in (bytes(len(data)), data[: len(data) // 2], b""):
        with pytest.raises(StoreError, match="WAL_DAMAGED"):
            require_segment(damaged, segment, system)


def test_the_end_is_found_wherever_it_is_cut(server: Production) -> None:
    """Never more than there is; and exactly what the server says to have flushed."""
    server.bench("-t", "20", "-n")
    segment, data, flushed, _ = current(server)
    size = flushed.value - segment.start.value
    whole = data[:size] + bytes(len(data) - size)
    assert written_end(whole, segment) == flushed
    assert written_bytes(whole, segment) == (size + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
    for cut in (*range(max(0, size - 300), size, 7), size // 2, size // 3, 8192, 41):
        end = written_end(data[:cut] + bytes(len(data) - cut), segment)
        assert end.value - segment.start.value <= (cut + 7) & ~7, cut
        assert end <= flushed
