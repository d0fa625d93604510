"""What a soak does and when, all of it drawn from the seed: the same seed, the same plan.

Three lanes go on side by side: faults of nodes, one at a time; outages of the store; changes of
Predictors. What the machine makes of it differs from run to run, what is done to it does not.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

KILL = "kill"
FREEZE = "freeze"
CUT = "cut"
RESTART = "restart"
KILL_RUNTIME = "kill runtime"
FORGET = "forget model"
JOIN = "join and leave"
NODE_FAULTS = (KILL, FREEZE, CUT, RESTART, KILL_RUNTIME, FORGET, JOIN)

OUTAGE = "store away"
WIPE = "store wiped"

CREATE = "create"
UPDATE = "update"
TO_AND_FRO = "to and fro"
BREAK = "break and mend"
DELETE = "delete"
CROWD = "crowd"

# Between the end of a fault and the next one, so that what has to come back does.
CALM_S = (2.0, 5.0)
STORE_CALM_S = (6.0, 14.0)
CHANGE_S = (0.3, 1.5)


@dataclass(frozen=True, slots=True)
class Step:
    """`at_s` from the start; a fault is over `for_s` later. `node` and `name` where it has one."""

    at_s: float
    kind: str
    for_s: float = 0.0
    node: int = 0
    name: str = ""
    path: str = ""

    def __str__(self) -> str:
        of = self.name or (f"node {self.node}" if self.kind in NODE_FAULTS else "")
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:6.1f} s  {self.kind} {of} {self.path}{lasting}".rstrip()


@dataclass(frozen=True, slots=True)
class Plan:
    node_faults: tuple[Step, ...]
    outages: tuple[Step, ...]
    changes: tuple[Step, ...]


def plan(seconds: float, seed: int, *, nodes: int, names: int) -> Plan:
    """`names` Predictors `p0`… exist at the start."""
    return Plan(
        tuple(_node_faults(random.Random(f"{seed} nodes"), seconds, nodes)),
        tuple(_outages(random.Random(f"{seed} store"), seconds)),
        tuple(_changes(random.Random(f"{seed} changes"), seconds, names)),
    )


def _node_faults(draw: random.Random, seconds: float, nodes: int) -> Iterator[Step]:
    at_s = draw.uniform(*CALM_S)
    deck: list[str] = []
    while at_s < seconds:
        if not deck:  # each of them before any comes again
            deck = draw.sample(NODE_FAULTS, len(NODE_FAULTS))
        kind = deck.pop()
        lasts_s = draw.uniform(3.0, 12.0) if kind in (FREEZE, CUT, KILL) else 0.0
        yield Step(at_s, kind, lasts_s, node=draw.randrange(nodes))
        at_s += lasts_s + draw.uniform(*CALM_S)


def _outages(draw: random.Random, seconds: float) -> Iterator[Step]:
    at_s = draw.uniform(*STORE_CALM_S)
    while at_s < seconds:
        lasts_s = draw.uniform(1.0, 13.0)
        yield Step(at_s, draw.choice((OUTAGE, WIPE)), lasts_s)
        at_s += lasts_s + draw.uniform(*STORE_CALM_S)


def _changes(draw: random.Random, seconds: float, count: int) -> Iterator[Step]:
    names = [f"p{number}" for number in range(count)]
    at_s = 0.5
    made = count
    while at_s < seconds:
        kind = draw.choice((CREATE, UPDATE, UPDATE, UPDATE, TO_AND_FRO, BREAK, DELETE, CROWD))
        made += 1
        path = f"load={draw.uniform(0.0, 0.3):.2f},version={made}"
        if kind == CREATE:
            names.append(f"p{made}")
            yield Step(at_s, kind, name=names[-1], path=path)
        elif kind == DELETE and len(names) > count // 2:
            yield Step(at_s, kind, name=names.pop(draw.randrange(len(names))))
        elif kind != DELETE:
            yield Step(at_s, kind, name=draw.choice(names), path=path)
        at_s += draw.uniform(*CHANGE_S)
