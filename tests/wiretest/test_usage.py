"""What nodes say of their use: two real nodes on loopback, and one that does not answer."""

from mesh.core.ids import NodeId
from mesh.core.records import NodeRecord, NodeState
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Put
from mesh.wire import records
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.fake_runtime import MB
from tests.support.world import World, eventually, world
from tests.wiretest.test_administration import pair


async def asked(w: World, **fields: bool) -> pb.UsageResponse:
    return await w.manage.Usage(pb.UsageRequest(**fields))


async def test_requests_are_counted_with_the_time_of_their_calls():
    async with world() as w:
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        before = await asked(w)
        for _ in range(5):
            await w.ask("p")
        after = await asked(w)
        (model,) = w.running.node.view.models
    (node,) = after.nodes
    assert (node.node, node.used_bytes, node.capacity_bytes) == ("n1", MB, 10 * MB)
    assert 0 < node.monotonic_s - before.nodes[0].monotonic_s < 10
    (first,), (copy,) = before.nodes[0].copies, node.copies
    assert (first.requests, list(first.calls)) == (0, [])
    assert (copy.model, copy.size_bytes, copy.requests, copy.in_flight) == (model, MB, 5, 0)
    assert sum(copy.calls) == 5
    assert copy.calls[-1]  # no zeros travel


async def test_any_node_answers_for_all_and_a_call_counts_where_it_was_answered():
    async with pair() as (left, right):
        await left.apply("p")
        await left.reaches("p", "Loaded  UpToDate")
        await eventually(lambda: len(right.running.node.routes) == 1)
        for w in (left, right):
            for _ in range(3):
                await w.ask("p")
        answers = [await asked(w) for w in (left, right)]
    for answer in answers:
        assert [node.node for node in answer.nodes] == ["n1", "n2"]
        assert list(answer.unreachable) == []
        assert sum(copy.requests for node in answer.nodes for copy in node.copies) == 6
        calls = [sum(map(sum, (copy.calls for copy in node.copies))) for node in answer.nodes]
        assert sum(calls) == 6
        assert 0 in calls  # there is one copy


async def test_what_was_passed_on_once_is_answered_by_the_node_alone():
    async with pair() as (left, _):
        assert [node.node for node in (await asked(left, is_passed_on=True)).nodes] == ["n1"]


async def test_nodes_that_do_not_answer_and_past_lives_are_named():
    registry = MemoryRegistry()
    async with pair(registry) as (left, right):
        taken = right.running.node.identity.address
        for name, address in (("gone", "127.0.0.1:1"), ("mute", ""), ("past", taken)):
            record = NodeRecord(NodeId(name), NodeState.READY, address=address)
            await registry.commit([Put(records.node_key(record.id), records.encode(record))])
        await eventually(lambda: len(left.running.node.view.nodes) == 5)
        answer = await asked(left)
    assert [node.node for node in answer.nodes] == ["n1", "n2"]
    assert list(answer.unreachable) == ["gone", "mute", "past"]
