"""What Prometheus reads of a node: the names that dashboards know, and counts that move."""

import asyncio

import aiohttp
import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.core.ids import ModelId
from mesh.ops.metrics import DECLARED
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.world import World, begin, eventually, world
from tests.wiretest.test_administration import pair

INFER = {"method": "ModelInfer", "code": "OK"}
# From the documentation of ModelMesh: users' dashboards and alerts have them.
PROMISED = """
    api_request_milliseconds invoke_model_milliseconds cache_miss_milliseconds
    loadmodel_milliseconds unloadmodel_milliseconds req_queue_delay_milliseconds
    loading_queue_delay_milliseconds model_sizing_milliseconds
    age_at_eviction_milliseconds request_size_bytes response_size_bytes loaded_model_size_bytes
    loadmodel_failure unloadmodel_failure unloadmodel_attempt_failure
    models_loaded_total models_with_failure_total models_managed_total
    instance_lru_seconds instance_lru_age_seconds instance_capacity_bytes instance_used_bytes
    instance_used_bps instance_models_total
""".split()  # noqa: SIM905 - a table


class Scraped:
    """One scrape, parsed by Prometheus' own library."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Of a sample whose name goes on after `modelmesh_`; 0 where there is none yet."""
        found = [
            sample.value
            for sample in self._samples
            if sample.name == f"modelmesh_{name}" and sample.labels == labels
        ]
        assert len(found) <= 1, (name, labels)
        return found[0] if found else 0.0


async def scrape(w: World) -> Scraped:
    url = f"http://127.0.0.1:{w.running.operations_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scraped(await answer.text())


async def test_names_are_those_that_dashboards_know():
    async with world() as w:
        families = (await scrape(w)).families
    names = {family.name for family in families}
    assert names == {declared.name for declared in DECLARED}
    assert names >= {f"modelmesh_{name}" for name in PROMISED}
    assert all(family.documentation for family in families)


async def test_request_is_counted_with_its_sizes_and_its_call_to_the_runtime():
    async with world() as w:
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        for _ in range(3):
            answer = await w.ask("p", "some-id")
        size_bytes = len(kfs.ModelInferRequest(model_name="p", id="some-id").SerializeToString())
        seen = await scrape(w)
    assert seen.value("api_request_milliseconds_count", **INFER) == 3
    assert seen.value("api_request_milliseconds_bucket", le="+Inf", **INFER) == 3
    assert seen.value("invoke_model_milliseconds_count", **INFER) == 3
    took_ms = seen.value("api_request_milliseconds_sum", **INFER)
    assert 5_000 > took_ms > seen.value("invoke_model_milliseconds_sum", **INFER) > 0.01
    assert seen.value("request_size_bytes_sum", **INFER) == 3 * size_bytes
    assert seen.value("response_size_bytes_sum", **INFER) == 3 * answer.ByteSize()


async def test_failures_are_counted_by_their_code():
    async with world(FakeRuntime(failures={"bad": "no such file"})) as w:
        await w.apply("bad", path="bad")
        with pytest.raises(grpc.aio.AioRpcError):
            await w.ask("bad")
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await w.ask("nobody")
        seen = await scrape(w)
    of_infer = "api_request_milliseconds_count"
    assert seen.value(of_infer, method="ModelInfer", code="FAILED_PRECONDITION") == 1
    assert seen.value(of_infer, method="ModelInfer", code="NOT_FOUND") == 2
    assert seen.value(of_infer, **INFER) == 0
    assert seen.value("response_size_bytes_count", method="ModelInfer", code="NOT_FOUND") == 0
    assert seen.value("model_sizing_milliseconds_count") == 0
    assert seen.value("loadmodel_failure") == 1
    assert seen.value("models_with_failure_total") == 1
    assert seen.value("req_queue_delay_milliseconds_count") > 0
    assert seen.value("cache_miss_milliseconds_count") == 0


async def test_caller_that_leaves_is_cancelled_in_both_counts():
    cancelled = {"method": "ModelInfer", "code": "CANCELLED"}
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.plane.gates["slow"] = asyncio.Event()
        slow = begin(w.ask("p", "slow"))
        await eventually(lambda: len(w.plane.metadata) == 2)
        slow.cancel()
        await eventually(lambda: w.plane.cancelled == ["slow"])
        seen = await scrape(w)
    for name in ("api_request", "invoke_model"):
        assert seen.value(f"{name}_milliseconds_count", **cancelled) == 1, name
        assert seen.value(f"{name}_milliseconds_count", **INFER) == 1, name
    assert seen.value("request_size_bytes_count", **cancelled) == 1
    assert seen.value("response_size_bytes_count", **cancelled) == 0


async def test_call_that_is_passed_on_is_a_request_here_and_an_invocation_there():
    async with pair() as (left, right):
        await left.apply("p")
        await left.reaches("p", "Loaded  UpToDate")
        await eventually(lambda: len(right.running.node.routes) == 1)
        (model,) = left.running.node.view.models
        here, there = (left, right) if right.running.node.copy(model) else (right, left)
        await here.ask("p")
        asked, answered = await scrape(here), await scrape(there)
    for seen, requests, invocations in ((asked, 1, 0), (answered, 0, 1)):
        assert seen.value("api_request_milliseconds_count", **INFER) == requests
        assert seen.value("invoke_model_milliseconds_count", **INFER) == invocations


async def test_loads_evictions_and_gauges_are_told():
    runtime = FakeRuntime(capacity_bytes=2 * MB, bad_unloads=2, sizing_s=0.25)
    async with world(runtime) as w:
        for name in ("a", "b", "c"):
            await w.apply(name, path=name)
            await w.ask(name)
        await eventually(lambda: len(runtime.unloads) == 1)
        model = ModelId(w.running.node.view.predictors["a"].active)
        await eventually(lambda: w.running.node.copy(model) is None)
        seen = await scrape(w)
    for name in ("loadmodel_milliseconds", "loading_queue_delay_milliseconds"):
        assert seen.value(f"{name}_count") == 3, name
    assert seen.value("model_sizing_milliseconds_count") == 3
    assert seen.value("model_sizing_milliseconds_sum") == 750
    assert seen.value("loaded_model_size_bytes_sum") == 3 * MB
    assert seen.value("cache_miss_milliseconds_count") >= 1
    assert seen.value("age_at_eviction_milliseconds_count") == 1
    assert seen.value("unloadmodel_milliseconds_count") == 1
    assert seen.value("unloadmodel_failure") == 1
    assert seen.value("unloadmodel_attempt_failure") == 2
    assert seen.value("models_managed_total") == 3
    assert seen.value("models_loaded_total") == 2
    assert seen.value("instance_models_total") == 2
    assert seen.value("instance_used_bytes") == 2 * MB
    assert seen.value("instance_capacity_bytes") == 2 * MB
    assert seen.value("instance_used_bps") == 10_000
    assert 0 <= seen.value("instance_lru_age_seconds") < 60
    assert seen.value("instance_lru_seconds") > 1_600_000_000


async def test_nodes_of_one_process_count_for_themselves():
    async with world() as one, world() as other:
        await one.apply("p")
        await one.ask("p")
        assert (await scrape(one)).value("api_request_milliseconds_count", **INFER) == 1
        assert (await scrape(other)).value("api_request_milliseconds_count", **INFER) == 0
