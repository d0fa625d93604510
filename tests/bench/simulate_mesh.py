"""The mesh of the simulation: mesh.core's own placement, demand and cache, over simulated nodes.

What is simpler than in a real mesh: unloading takes no time; copies without use are looked at once
a minute, and only where there are several; no copy is slow with many requests; every node sees the
same view, copies at once and the figures of nodes a second late; the use of a model spreads evenly
over its copies.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from mesh.core.cache import Cache, Entry, Evict, Granted
from mesh.core.demand import DEFAULTS, Grow, Past, Shrink, Situation, Thresholds, born, look
from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName, StorageKey
from mesh.core.placement import EXTRA_KEEPS_FREE, Load, Question, decide
from mesh.core.placement_order import Sorter
from mesh.core.records import BackingModel, CopyRecord, CopyState, NodeRecord, NodeState
from mesh.core.rendezvous import rendezvous
from mesh.core.spec import ModelSource, ModelType
from tests.bench.simulate_traffic import Plan, Traffic

LAG_S = 1.0
RATE_S = 30.0
ZONES = 3
TYPE = ModelType("sklearn")
RUNTIME = RuntimeName("mlserver-1.x")
SOURCE = ModelSource(TYPE, "a", StorageKey("k"))


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules under test; others than the mesh's own are for comparison."""

    sorters: Sequence[Sorter] | None = None
    thresholds: Thresholds = DEFAULTS
    is_second_copy: bool = True


@dataclass(slots=True)
class Tally:
    requests: int = 0
    hits: int = 0
    loads: int = 0
    grown: int = 0
    seconds: int = 0
    shrunk: int = 0
    evictions: int = 0
    refusals: int = 0
    waits_s: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Copy:
    """A copy on a node; `past` is set once it is Loaded."""

    node: "SimNode"
    entry: Entry
    record: CopyRecord
    is_again: bool
    past: Past | None = None
    looked_s: float = 0.0
    requests: int = 0


@dataclass(slots=True, eq=False)
class SimNode:
    id: NodeId
    zone: str
    cache: Cache
    slots: list[float]
    joined_s: float
    loading: int = 0
    requests: int = 0
    rps: float = 0.0
    is_dirty: bool = False
    is_live: bool = True

    def record(self) -> NodeRecord:
        """What it announces."""
        return NodeRecord(
            self.id,
            NodeState.READY,
            runtime=RUNTIME,
            model_types=frozenset({TYPE}),
            capacity_bytes=self.cache.capacity_bytes,
            used_bytes=self.cache.used_bytes,
            zone=self.zone,
            loading=self.loading,
            rps=self.rps,
            oldest_use_s=self.cache.oldest_use_s() or 0.0,
            joined_s=self.joined_s,
        )


class Mesh:
    """`copies` are by model and node; `now` is in seconds from the beginning."""

    def __init__(self, plan: Plan, traffic: Traffic, rules: Rules) -> None:
        self.tally = Tally()
        self.copies: dict[int, dict[NodeId, Copy]] = {}
        self.nodes: dict[NodeId, SimNode] = {}
        self._plan = plan
        self._traffic = traffic
        self._rules = rules
        self._random = random.Random(plan.seed + 1)
        self._loading: dict[NodeId, int] = {}
        self._records: dict[NodeId, NodeRecord] = {}
        self._ending: list[tuple[float, int, int, NodeId]] = []
        self._dirty: deque[tuple[float, SimNode]] = deque()
        self._born = 0
        for _ in range(plan.nodes):
            self.join(0.0)

    def join(self, now: float) -> None:
        self._born += 1
        node = SimNode(
            NodeId(f"n{self._born}"),
            f"z{self._born % ZONES}",
            Cache(self._plan.node_bytes),
            [0.0] * self._plan.load_slots,
            now,
        )
        self.nodes[node.id] = node
        self._records[node.id] = node.record()
        self._loading[node.id] = 0

    def kill_one(self) -> None:
        """A node dies, and all that it held is gone."""
        node = self.nodes.pop(self._random.choice(list(self.nodes)))
        node.is_live = False
        del self._records[node.id]
        for model, held in list(self.copies.items()):
            if node.id in held:
                self._forget(model, node.id)

    def use(self, model: int, count: int, now: float) -> None:
        """Requests for a model; those after the first of a load wait for it, and are no hits."""
        self._settle(now)
        self.tally.requests += count
        copies = self.copies.get(model)
        if copies is None:
            self._load_first(model, now)
            return
        loaded = [copy for copy in copies.values() if copy.past is not None]
        if not loaded:
            return
        self.tally.hits += count
        share, rest = divmod(count, len(loaded))
        first = self._random.randrange(len(loaded))
        for index, copy in enumerate(loaded):
            part = share + ((index - first) % len(loaded) < rest)
            if part:
                copy.entry.used_s = now
                copy.requests += part
                copy.node.requests += part
        self._look_at(model, loaded, now)

    def measure_rates(self) -> tuple[float, float]:
        """Announces the request rates of the last half minute: the mean and the highest."""
        for node in self.nodes.values():
            node.rps, node.requests = node.requests / RATE_S, 0
            self._records[node.id] = replace(self._records[node.id], rps=node.rps)
        rates = [node.rps for node in self.nodes.values()]
        return sum(rates) / len(rates), max(rates)

    def look_over(self, now: float) -> None:
        """Looks at models with several copies, of which some may not be used any more."""
        self._settle(now)
        for model, copies in list(self.copies.items()):
            if len(copies) > 1:
                loaded = [copy for copy in copies.values() if copy.past is not None]
                self._look_at(model, loaded, now)

    def _look_at(self, model: int, loaded: list[Copy], now: float) -> None:
        due = [copy for copy in loaded if now - copy.looked_s >= self._rules.thresholds.look_s]
        if not due:
            return
        order = rendezvous(f"m{model}", [copy.node.id for copy in loaded])
        for copy in due:
            if copy.past is None:
                continue
            rps = copy.requests / max(self._rules.thresholds.look_s, now - copy.looked_s)
            copy.looked_s, copy.requests = now, 0
            situation = Situation(
                rps,
                rps * self._plan.service_s,
                loaded=len(loaded),
                loading=len(self.copies[model]) - len(loaded),
                rank=order.index(copy.node.id),
                fit=len(self.nodes),
            )
            copy.past, verdict = look(
                copy.past, situation, now=now, thresholds=self._rules.thresholds
            )
            match verdict:
                case Grow():
                    self._grow(model, verdict, now)
                case Shrink():
                    self._forget(model, copy.node.id)
                    copy.node.cache.drop(_id(model))
                    self._announce(copy.node, now)
                    self.tally.shrunk += 1

    def _grow(self, model: int, grow: Grow, now: float) -> None:
        if grow.fill and not (self._rules.is_second_copy and self._has_room()):
            return
        for _ in range(grow.to - len(self.copies[model])):
            if not self._load(model, now, fill=grow.fill, extra=True):
                return
            self.tally.grown += 1
            self.tally.seconds += grow.fill

    def _has_room(self) -> bool:
        """What `decide` would find out the long way: no node is free enough for an extra copy."""
        kept_bytes = self._plan.node_bytes * (1 - EXTRA_KEEPS_FREE)
        return any(record.used_bytes < kept_bytes for record in self._records.values())

    def _load_first(self, model: int, now: float) -> None:
        if not self._load(model, now):
            self.tally.refusals += 1

    def _load(self, model: int, now: float, *, fill: bool = False, extra: bool = False) -> bool:
        copies = self.copies.get(model, {})
        loaded = {at: copy.record for at, copy in copies.items() if copy.past is not None}
        question = Question(
            BackingModel(_id(model), PredictorName("p"), "", SOURCE),
            loaded if extra else {at: copy.record for at, copy in copies.items()},
            self._records,
            now,
            excluded=frozenset(copies.keys() - loaded.keys()),
            size_bytes=self._traffic.size_bytes(model),
            fill=fill,
            extra=extra,
            coming=self._loading.__getitem__,
        )
        decision = decide(question, sorters=self._rules.sorters)
        if not isinstance(decision, Load):
            return False
        return self._start(model, self.nodes[decision.node], now, is_again=fill)

    def _start(self, model: int, node: SimNode, now: float, *, is_again: bool) -> bool:
        size_bytes = self._traffic.size_bytes(model)
        answer = node.cache.ask(_id(model), size_bytes, now=now)
        if isinstance(answer, Evict):
            for victim in answer.victims:
                node.cache.drop(victim)
                self._forget(int(victim[1:]), node.id)
                self.tally.evictions += 1
            answer = node.cache.ask(_id(model), size_bytes, now=now)
        if not isinstance(answer, Granted):
            return False
        answer.entry.pins = 1
        record = CopyRecord(_id(model), node.id, CopyState.LOADING, now, size_bytes)
        copy = Copy(node, answer.entry, record, is_again)
        self.copies.setdefault(model, {})[node.id] = copy
        begin_s = max(now, heappop(node.slots))
        end_s = begin_s + self._plan.load_s * (0.5 + size_bytes / self._plan.model_bytes / 2)
        heappush(node.slots, end_s)
        self._count_load(node, 1)
        self.tally.loads += 1
        self.tally.waits_s.append(end_s - now)
        heappush(self._ending, (end_s, self.tally.loads, model, node.id))
        self._announce(node, now)
        return True

    def _settle(self, now: float) -> None:
        """Ends the loads that are done by now, and shows what nodes announced a second ago."""
        while self._ending and self._ending[0][0] <= now:
            end_s, _, model, at = heappop(self._ending)
            copy = self.copies.get(model, {}).get(at)
            node = self.nodes.get(at)
            if copy is None or node is None:
                continue
            copy.past = born(now=end_s, again=copy.is_again)
            copy.looked_s = end_s
            copy.entry.pins = 0
            copy.entry.used_s = end_s
            copy.record = replace(copy.record, state=CopyState.LOADED, since_s=end_s)
            self._count_load(node, -1)
            self._announce(node, end_s)
        while self._dirty and self._dirty[0][0] <= now:
            _, node = self._dirty.popleft()
            node.is_dirty = False
            if node.is_live:
                self._records[node.id] = node.record()

    def _count_load(self, node: SimNode, by: int) -> None:
        node.loading += by
        self._loading[node.id] = node.loading

    def _announce(self, node: SimNode, now: float) -> None:
        if not node.is_dirty:
            node.is_dirty = True
            self._dirty.append((now + LAG_S, node))

    def _forget(self, model: int, node: NodeId) -> None:
        copies = self.copies[model]
        del copies[node]
        if not copies:
            del self.copies[model]


def _id(model: int) -> ModelId:
    return ModelId(f"m{model}")
