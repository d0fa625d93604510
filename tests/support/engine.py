"""The engine of one node over the memory store and a fake runtime, in virtual time: no sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from mesh.agent.copy import Copy
from mesh.agent.engine import Node
from mesh.agent.holdings import Identity
from mesh.agent.predictors import advance
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.records import Predictor, Record
from mesh.core.spec import RuntimeSpec
from mesh.core.status import PredictorStatus, predictor_status
from mesh.core.transition import Applied, Event, Removed, Retry
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Registry
from mesh.wire import records
from tests.support.builders import RUNTIME, model_of, spec
from tests.support.fake_peers import FakePeers, Network
from tests.support.fake_runtime import FakeRuntime
from tests.support.virtual_time import CLOCK, loop_time_s

WITHIN_S = 10.0


async def until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Waits, in virtual time, until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it may be anything
            await asyncio.sleep(0.01)


@dataclass
class Engine:
    """A running node, and what stands around it."""

    node: Node
    registry: Registry
    runtime: FakeRuntime

    async def apply(self, name: str, path: str = "a", **bounds: int) -> ModelId:
        """Writes a Predictor as its owner does; the id of the model that it asks for.

        `bounds`: its `min_copies` and `max_copies`.
        """
        await self._step(PredictorName(name), Applied(replace(spec(name, path), **bounds)))
        return model_of(name, path).id

    async def delete(self, name: str) -> None:
        await self._step(PredictorName(name), Removed())

    async def ask(self, name: str) -> ModelId:
        """A request from start to end; the model that answered."""
        copy = await self.node.resolve(name)
        copy.leave()
        return copy.id

    def begin(self, name: str) -> asyncio.Task[Copy]:
        """A request that resolves; it stays in its copy."""
        return asyncio.get_running_loop().create_task(self.node.resolve(name))

    def predictor(self, name: str) -> Predictor:
        return self.node.view.predictors[PredictorName(name)]

    def status(self, name: str) -> PredictorStatus:
        return predictor_status(self.predictor(name), self.node.view, now=CLOCK.wall_s())

    def row(self, name: str) -> str:
        """ACTIVEMODEL TARGETMODEL TRANSITION, as the table shows them."""
        status = self.status(name)
        return f"{status.active_state} {status.target_state or '-'} {status.transition}"

    async def reaches(self, name: str, row: str, within_s: float = WITHIN_S) -> None:
        try:
            await until(lambda: self.row(name) == row, within_s)
        except TimeoutError:
            raise AssertionError(f"{name} is {self.row(name)!r}, not {row!r}") from None

    async def settle(self) -> None:
        """Lets everything happen that happens within a second."""
        await asyncio.sleep(1.0)

    async def stored(self, prefix: str) -> list[Record | None]:
        snapshot = await self.registry.list(prefix)
        return [records.decode(entry.key, entry.value) for entry in snapshot.entries]

    async def _step(self, name: PredictorName, event: Event) -> None:
        outcome = await advance(self.registry, name, event, CLOCK.wall_s)
        if outcome.revision is not None:
            await self.node.follower.caught_up(outcome.revision)
        for effect in outcome.effects:
            if isinstance(effect, Retry):
                self.node.forgive(effect.model)


@asynccontextmanager
async def engine(
    runtime: FakeRuntime | None = None,
    *,
    registry: Registry | None = None,
    node_id: str = "n1",
    patience_s: float = 30.0,
    drain_limit_s: float = 30.0,
    network: Network | None = None,
    zone: str = "",
    offers: RuntimeSpec | None = RUNTIME,
    **identity_fields,
) -> AsyncIterator[Engine]:
    """A node whose runtime, if it is up, is READY; with a network it is one of a mesh."""
    address = "" if network is None else f"{node_id}:8034"
    runtime = runtime or FakeRuntime()
    registry = registry or MemoryRegistry(clock=loop_time_s)
    identity = Identity(
        NodeId(node_id),
        offers,
        address=address,
        zone=zone,
        drain_limit_s=drain_limit_s,
        patience_s=patience_s,
        **identity_fields,
    )
    node = Node(identity, registry, runtime, FakePeers(network or Network(), address), clock=CLOCK)
    if network is not None:
        network.change(lambda: network.nodes.update({address: node}))
    running = asyncio.get_running_loop().create_task(node.run())
    try:
        await node.follower.wait_synced()
        if runtime.is_up:
            await until(lambda: node.is_ready)
        yield Engine(node, registry, runtime)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
