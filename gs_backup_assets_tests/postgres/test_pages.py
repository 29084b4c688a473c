"""Checksums of pages are computed as the server does it."""

from __future__ import annotations

import pytest

from gs_backup_assets.postgres.pages import PAGE_BYTES, page_checksum, stored_checksum, with_checksum
from gs_backup_assets_tests.production import production


@pytest.mark.parametrize("major", [15, 17])
def test_checksums_are_those_that_the_server_wrote(major: int) -> None:
    with production(major) as server:
        server.sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 5) AS words FROM generate_series(1, 1000) n")
        server.sql("CREATE INDEX t_words ON t (words)")
        server.sql("CHECKPOINT")
        pages = []
        for relation in ("t", "t_words"):
            ((path,),) = server.sql(f"SELECT pg_relation_filepath('{relation}')")
            data = (server.data / str(path)).read_bytes()
            found = ((at // PAGE_BYTES, data[at : at + PAGE_BYTES]) for at in range(0, len(data), PAGE_BYTES))
            pages += [(block, page) for block, page in found if any(page)]  # a page that was never used has none
    assert len(pages) > 20
    for block, page in pages:
        assert page_checksum(page, block) == stored_checksum(page)
        assert page_checksum(page, block + 1) != stored_checksum(page), "a page in another place is wrong"
        changed = page[:-1] + bytes([page[-1] ^ 1])
        assert page_checksum(changed, block) != stored_checksum(page)
        assert stored_checksum(with_checksum(changed, block)) == page_checksum(changed, block)
