"""A real PgBouncer in front of a test server, out of Debian's packages."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import Program
from gs_backup_assets_tests.postgres.debian import unpacked


def free_port() -> int:
    """A port of the loopback address that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pgbouncer(cluster: Cluster, mode: str) -> Iterator[int]:
    """A real PgBouncer in front of the cluster's database postgres; its port."""
    home = unpacked("pgbouncer", ["pgbouncer", "libc-ares2", "libevent-2.1-7"])
    program = home / "usr" / "sbin" / "pgbouncer"
    libraries = os.pathsep.join(str(path.parent) for path in home.glob("usr/lib/*/libcares.so.2"))
    target, port = cluster.target(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        place = f"host={target.host} port={target.parameters['port']} user={cluster.superuser}"
        (folder / "ini").write_text(
            f"[databases]\npostgres = {place}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"auth_type = any\npool_mode = {mode}\nunix_socket_dir =\n"
        )
        argv = [program, folder / "ini"]
        with Program(argv, account=server_account(), environment={"LD_LIBRARY_PATH": libraries}) as process:
            for _ in range(500):
                with socket.socket() as probe:
                    probe.settimeout(0.1)
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.running, process.last_lines
                time.sleep(0.02)
            yield port
