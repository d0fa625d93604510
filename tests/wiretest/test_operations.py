"""/livez and /readyz, ServerReady and grpc.health.v1 tell the same truth."""

import aiohttp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.support.fake_runtime import FakeRuntime
from tests.support.world import eventually, world

SERVING = health_pb2.HealthCheckResponse.SERVING


async def probe(w, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{w.running.operations_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, (await answer.text()).strip()


async def says(w) -> tuple[int, bool, bool]:
    """What readyz, ServerReady and the health service say."""
    ready = await w.infer.ServerReady(kfs.ServerReadyRequest())
    health = health_pb2_grpc.HealthStub(w.channel)
    checked = await health.Check(health_pb2.HealthCheckRequest())
    return (await probe(w, "/readyz"))[0], ready.ready, checked.status == SERVING


async def becomes(w, expected) -> None:
    async def there():
        return await says(w) == expected

    await eventually(there, lambda: f"not {expected}")


async def test_readiness_follows_the_runtime():
    async with world(FakeRuntime(is_up=False)) as w:
        assert await says(w) == (503, False, False)
        assert await probe(w, "/readyz") == (503, "the runtime is not ready")
        w.runtime.is_up = True
        await becomes(w, (200, True, True))
        w.runtime.die()
        await becomes(w, (503, False, False))
        w.runtime.is_up = True
        await becomes(w, (200, True, True))


async def test_draining_node_is_alive_and_not_ready():
    async with world() as w:
        await becomes(w, (200, True, True))
        w.running.node.drain()
        await becomes(w, (503, False, False))
        assert await probe(w, "/readyz") == (503, "the node is draining")
        assert await probe(w, "/livez") == (200, "ok")
