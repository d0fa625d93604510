"""Cuts between nodes: a proxy before each, which stops to pass anything on and resets nothing.

A node announces its proxy's address, so that whatever other nodes send it comes through here; who
sends is known by the process that has the other end of the connection. While a pair is cut nothing
passes in either direction of connections that one has opened to the other: bytes stay where they
are, and a new connection finds nobody behind it. Threads and a loop of its own, so that a busy test
does not hold up the nodes.
"""

import asyncio
import threading
from typing import Any, Protocol

import psutil

CHUNK_BYTES = 65_536


class Member(Protocol):
    """A node, as far as this is concerned."""

    process: Any

    @property
    def internal(self) -> str: ...


class CuttingProxies:
    """Use it as a context manager; its methods are for other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._members: dict[str, Member] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut: set[frozenset[int]] = set()
        self._changed = asyncio.Event()
        self.stalled = 0

    def __enter__(self) -> "CuttingProxies":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def open(self, address: str) -> str:
        """Listens there; `lead` says where it leads."""
        asyncio.run_coroutine_threadsafe(self._listen(address), self._loop).result(10)
        return address

    def lead(self, address: str, member: Member) -> None:
        self._members[address] = member

    def cut(self, one: Member, *others: Member) -> None:
        """Nothing passes any more between the one and each of the others."""
        self._change(self._cut | {_pair(one, other) for other in others})

    def heal(self) -> None:
        self._change(set())

    def _change(self, cut: set[frozenset[int]]) -> None:
        def change() -> None:
            self._cut = cut
            self._changed.set()
            self._changed = asyncio.Event()

        self._loop.call_soon_threadsafe(change)

    async def _listen(self, address: str) -> None:
        host, _, port = address.rpartition(":")

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await self._serve(address, reader, writer)

        self._servers.append(await asyncio.start_server(accept, host, int(port)))

    async def _serve(
        self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream = None
        try:
            member = self._members[address]
            port = writer.get_extra_info("peername")[1]
            sender = await asyncio.to_thread(self._sender, port)
            pair = None if sender is None else _pair(sender, member)
            await self._passable(pair)
            host, _, to_port = member.internal.rpartition(":")
            there, upstream = await asyncio.open_connection(host, int(to_port))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(pair, reader, upstream))
                group.create_task(self._pump(pair, there, writer))
        except* OSError:
            pass  # as whoever listens there says: refused, reset
        finally:
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()

    async def _pump(
        self,
        pair: frozenset[int] | None,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
    ) -> None:
        while data := await source.read(CHUNK_BYTES):
            await self._passable(pair)
            target.write(data)
            await target.drain()
        await self._passable(pair)
        raise ConnectionResetError  # one end is closed: so is the other

    async def _passable(self, pair: frozenset[int] | None) -> None:
        while pair in self._cut:
            self.stalled += 1
            await self._changed.wait()

    def _sender(self, port: int) -> Member | None:
        """The node whose process has a connection from this port."""
        for member in self._members.values():
            if member.process is None:
                continue
            try:
                found = psutil.Process(member.process.pid).net_connections("tcp")
            except psutil.Error:
                continue
            if any(connection.laddr.port == port for connection in found if connection.raddr):
                return member
        return None

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)  # who was accepted just now has a task, which begins
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])
        await asyncio.sleep(0)  # what was aborted is closed


def _pair(one: Member, other: Member) -> frozenset[int]:
    return frozenset((id(one), id(other)))
