"""A client of a mesh as its users have it: one channel over all nodes in turn.

No retry policy: a failed call is a lost one. What gRPC sends anew by itself, because the server
never saw it (a connection that has just come of age), stays on as it is for everybody.

It keeps what became of each request, and checks each answer against what the Predictor may answer.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from mesh.ops.tasks import Tasks
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from tests.support.mesh_versions import Versions
from tests.support.stand import mnist_request

OK = "OK"
WRONG = "WRONG MODEL"
ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'
CLIENT_OPTIONS = (
    ("grpc.service_config", ROUND_ROBIN),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Tests on one machine share nothing.
    ("grpc.use_local_subchannel_pool", 1),
)
# A node that vanishes without a reset is noticed.
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 1_500),
    ("grpc.http2.ping_timeout_ms", 1_500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and what became of it; `outcome` is a gRPC code's name, or WRONG. Seconds of the
    monotonic clock."""

    name: str
    start_s: float
    end_s: float
    outcome: str
    model: str = ""
    details: str = ""

    @property
    def is_lost(self) -> bool:
        return self.outcome != OK

    def __str__(self) -> str:
        at = f"{self.start_s:.3f}+{self.end_s - self.start_s:.3f}s"
        return f"{at} {self.name}: {self.outcome} {self.model} {self.details[:200]}"


class MeshClient:
    """`asked` has every request that ended; use it as an async context manager.

    One that `is_patient` waits for a node that does not answer, however long.
    """

    def __init__(
        self, addresses: Sequence[str], versions: Versions, *, is_patient: bool = False
    ) -> None:
        target = "ipv4:" + ",".join(addresses)
        options = CLIENT_OPTIONS if is_patient else CLIENT_OPTIONS + KEEPALIVE_OPTIONS
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._stub = kfs_grpc.GRPCInferenceServiceStub(self._channel)
        self._versions = versions
        self.asked: list[Asked] = []

    async def __aenter__(self) -> "MeshClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def ask(self, name: str, timeout_s: float = 10.0) -> Asked:
        """One request; never raises for how it ends."""
        start_s = time.monotonic()
        request = mnist_request(name)
        model = details = ""
        try:
            answer = await self._stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            outcome, details = error.code().name, error.details() or ""
        else:
            model = answer.model_name
            outcome = OK if self._versions.is_allowed(name, model, start_s) else WRONG
        asked = Asked(name, start_s, time.monotonic(), outcome, model, details)
        self.asked.append(asked)
        return asked

    async def ask_at_once(self, name: str, count: int, timeout_s: float = 30.0) -> list[Asked]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.ask(name, timeout_s)) for _ in range(count)]
        return [task.result() for task in tasks]

    @contextlib.asynccontextmanager
    async def traffic(
        self,
        names: Callable[[], str],
        rps: float,
        *,
        timeout_s: float = 10.0,
        burst: int = 1,
        most_in_flight: int = 500,
    ) -> AsyncIterator[None]:
        """Requests at a steady rate, `burst` at a time, whatever becomes of those before."""
        tasks = Tasks()
        in_flight: set[asyncio.Task[Asked]] = set()

        async def run() -> None:
            next_s = time.monotonic()
            while True:
                next_s += burst / rps
                await asyncio.sleep(next_s - time.monotonic())
                for _ in range(min(burst, most_in_flight - len(in_flight))):
                    task = tasks.spawn(self.ask(names(), timeout_s), "ask")
                    in_flight.add(task)
                    task.add_done_callback(in_flight.discard)

        running = tasks.spawn(run(), "traffic")
        try:
            yield
        finally:
            running.cancel()
            if in_flight:
                await asyncio.wait([*in_flight])
            await tasks.close()

    @property
    def lost(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.is_lost]

    def lost_but_for(self, is_excused: Callable[[Asked], bool]) -> list[Asked]:
        return [asked for asked in self.lost if not is_excused(asked)]

    def summary(self) -> str:
        outcomes = Counter(asked.outcome for asked in self.asked)
        took = sorted(asked.end_s - asked.start_s for asked in self.asked) or [0.0]
        p99 = took[int(len(took) * 0.99) - 1]
        return f"{dict(outcomes)}, p99 {p99 * 1e3:.0f} ms, longest {took[-1] * 1e3:.0f} ms"


def one_of(names: Sequence[str], seed: int = 1) -> Callable[[], str]:
    """A name at random, each as likely as any other."""
    choose = random.Random(seed)
    return lambda: choose.choice(names)


def cut_short(asked: Asked, fault_s: float, within_s: float) -> bool:
    """Excuses what was in flight at a fault, or came within `within_s` of it."""
    is_near = asked.start_s < fault_s + within_s and asked.end_s > fault_s
    return is_near and asked.outcome == grpc.StatusCode.UNAVAILABLE.name
