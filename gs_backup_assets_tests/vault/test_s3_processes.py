"""The S3 store in a process of its own: interrupted before a stuck server, its memory, and a clock that is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from urllib.parse import quote

import pytest

from gs_backup_assets_tests.faults import Break, Proxy
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.s3_server import S3Server
from gs_backup_assets_tests.vault.s3_parts import LONG

STALLED = """
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.system.crew import side_by_side
from gs_backup_assets.vault.opening import open_configured

endpoint, bucket, what = sys.argv[1:]
store = open_configured(S3StoreConfig(kind="s3", bucket=bucket, endpoint=endpoint), Path("/"))
data = bytes(20_000_000)

def put(number, go_on):
    store.put(BytesIO(data), f"shop/{what}/{number}", size=len(data))

if what == "one part":
    store.put_bytes(b"x", "shop/one part/1")
elif what == "parts":
    put(1, None)
elif what == "crew":
    side_by_side([partial(put, 1), partial(put, 2)], at_a_time=2, name="test")
else:
    store.open("shop/reading/1").read()
"""


def test_nobody_who_is_interrupted_waits_for_a_server_that_stalls(
    s3_server: S3Server, bucket: str, proxy: Proxy
) -> None:
    s3_server.store(bucket).put(BytesIO(LONG), "shop/reading/1", size=len(LONG))
    proxy.on("PUT", "", Break("stall", "request"), times=None)
    proxy.on("GET", "shop/reading/1", Break("stall", "response", 1), skip=1, times=None)
    kinds = {"one part": ("PUT", 1), "parts": ("PUT", 3), "crew": ("PUT", 6), "reading": ("GET", 3)}
    processes = [
        subprocess.Popen([sys.executable, "-c", STALLED, proxy.endpoint, bucket, kind], stderr=subprocess.PIPE)
        for kind in kinds
    ]
    try:
        for kind, (method, requests) in kinds.items():
            pattern = quote(f"shop/{kind}/")
            wait_until(lambda m=method, p=pattern, n=requests: proxy.count(m, p) >= n, what=f"{kind} stalls")
        started = time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            _, words = process.communicate(timeout=30)
            assert process.returncode == -signal.SIGINT
            assert words.rstrip().endswith(b"KeyboardInterrupt"), words.decode()
        assert time.monotonic() - started < 15
    finally:
        for process in processes:
            process.kill()
            process.communicate()


MEMORY = """

import hashlib
import resource
import sys
from pathlib import Path
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.vault.opening import open_configured
from gs_backup_assets.vault.pipeline import copy

class Zeros:
    def __init__(self, size):
        self.left = size
    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

endpoint, bucket, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_configured(S3StoreConfig(kind="s3", bucket=bucket, endpoint=endpoint), Path("/"))
stored = store.put(Zeros(size), f"{size}", size=size)
with store.open(f"{size}") as stream:
    assert copy(stream, None, size=size) == stored
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_object(s3_server: S3Server, bucket: str) -> None:
    def peak(size: int) -> int:
        argv = [sys.executable, "-c", MEMORY, s3_server.endpoint, bucket, str(size)]
        result = subprocess.run(argv, capture_output=True, text=True, check=True)
        return int(result.stdout) << 10

    assert peak(200_000_000) - peak(40_000_000) < 30_000_000


SKEWED = """
import sys
from pathlib import Path
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.opening import open_configured
store = open_configured(S3StoreConfig(kind="s3", bucket=sys.argv[2], endpoint=sys.argv[1]), Path("/"))
for action in (
    lambda: store.exists("x"),
    lambda: store.own_checksum("x"),
    lambda: store.put_bytes(b"x", "x"),
    lambda: store.open("x"),
    lambda: store.folders(""),
    lambda: store.delete("x"),
):
    try:
        action()
        print("passed")
    except StoreError as error:
        print(error.code)
"""


@pytest.mark.parametrize(
    "offset, outcome",
    [("-10m", "passed"), ("+10m", "passed"), ("-2h", "CLOCK_SKEWED"), ("+2h", "CLOCK_SKEWED")],
)
def test_a_clock_that_is_wrong(s3_server: S3Server, bucket: str, offset: str, outcome: str) -> None:
    """S3 allows a quarter of an hour. An answer to HEAD cannot say so, and the code is found all the same."""
    if shutil.which("faketime") is None:
        if os.environ.get("CI"):
            pytest.fail("faketime is missing: .ci/run installs it, and a test that did not run must not look green")
        pytest.skip("faketime is not installed")
    store = s3_server.store(bucket)
    store.put_bytes(b"x", "x")
    argv = ["faketime", "-f", offset, sys.executable, "-c", SKEWED, s3_server.endpoint, bucket]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    expected = [outcome] * 6
    if outcome == "passed":
        expected[2] = "OBJECT_EXISTS"
    assert (result.stdout.split(), result.stderr) == (expected, "")
