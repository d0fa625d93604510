"""A TCP proxy on loopback whose connections can be broken off, all at once, as a machine's are that
dies. It runs on the test's loop, holds nothing back and understands nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class SeveringProxy:
    """`address` is where it listens; `target`, which may be set later, where it leads."""

    def __init__(self, target: str = "") -> None:
        self.address = ""
        self.target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def sever(self) -> int:
        """Resets the connections that there are, and says how many; new ones are let in."""
        severed = tuple(self._writers)
        for writer in severed:
            writer.transport.abort()
        return len(severed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        ends = {writer}
        self._writers.add(writer)
        try:
            there, upstream = await asyncio.open_connection(host, int(port))
            ends.add(upstream)
            self._writers.add(upstream)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, upstream))
                group.create_task(_pump(there, writer))
        except* OSError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
    raise ConnectionResetError  # one end is closed: so is the other


@asynccontextmanager
async def severing(target: str = "") -> AsyncIterator[SeveringProxy]:
    proxy = SeveringProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.address = f"{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.sever()
        await asyncio.sleep(0)  # what was aborted is closed
