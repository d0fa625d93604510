"""Traffic of the simulation: Zipf over the models, with ranks that change, and days and nights.

The models used most (`hot`) are drawn as counts for each tick; the others as single requests.
"""

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, pi, sin, sqrt

# A model used more often than this is hot: drawn by counts.
HOT_RPS = 0.1
DAY_S = 86_400.0
SIZES = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated. `rps` is the mean over a day; every `shift_s` a model becomes popular in
    the place of another, every `churn_s` a node dies and an empty one comes."""

    nodes: int = 1000
    models: int = 1_000_000
    hours: float = 24.0
    seed: int = 1
    rps: float = 1000.0
    zipf: float = 1.5
    swing: float = 0.5
    shift_s: float = 300.0
    churn_s: float = 1800.0
    tick_s: float = 5.0
    node_bytes: int = 1 << 28
    model_bytes: int = 4 << 20
    load_s: float = 2.0
    load_slots: int = 2
    service_s: float = 0.02


class Traffic:
    """The requests of a plan; the same for the same seed, whatever becomes of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._random = random.Random(plan.seed)
        self._models = array("l", range(plan.models))
        self._random.shuffle(self._models)
        self.scale = plan.rps / _mass(1, plan.models + 1, plan.zipf)
        self.hot = min(plan.models, int((self.scale / HOT_RPS) ** (1 / plan.zipf)))
        tail = _mass(self.hot + 1, plan.models + 1, plan.zipf)
        self.tail_rps = self.scale * tail
        sizes = random.Random(0)
        self._sizes = [int(plan.model_bytes * exp(sizes.gauss(-0.32, 0.8))) for _ in range(SIZES)]

    def size_bytes(self, model: int) -> int:
        return self._sizes[model * 2_654_435_761 % SIZES]

    def swing(self, now: float) -> float:
        return 1 + self.plan.swing * sin(2 * pi * now / DAY_S)

    def shift(self) -> None:
        """Some model takes the place of a hot one, which takes its place."""
        rank = int(self.hot ** self._random.random())
        other = self._random.randrange(self.plan.models)
        models = self._models
        models[rank], models[other] = models[other], models[rank]

    def ranked(self, rank: int) -> int:
        return self._models[rank]

    def counts(self, now: float) -> Iterator[tuple[int, int]]:
        """Requests of this tick for each hot model that has some."""
        scale = self.scale * self.swing(now) * self.plan.tick_s
        for rank in range(self.hot):
            count = self._poisson(scale * (rank + 1) ** -self.plan.zipf)
            if count:
                yield self._models[rank], count

    def singles(self, now: float) -> list[tuple[float, int]]:
        """The requests of this tick for all others, in the order of time."""
        plan, draw = self.plan, self._random.random
        count = self._poisson(self.tail_rps * self.swing(now) * plan.tick_s)
        times = sorted(now + plan.tick_s * draw() for _ in range(count))
        return [(at, self._models[self._tail_rank(draw())]) for at in times]

    def _tail_rank(self, uniform: float) -> int:
        """The continuous form of the distribution, over all ranks that are not hot."""
        power = 1 - self.plan.zipf
        low, high = (self.hot + 0.5) ** power, (self.plan.models + 0.5) ** power
        rank = (low + uniform * (high - low)) ** (1 / power) - 0.5
        return min(self.plan.models - 1, max(self.hot, int(rank)))

    def _poisson(self, mean: float) -> int:
        if mean > 30:
            return max(0, round(self._random.gauss(mean, sqrt(mean))))
        limit, count, product = exp(-mean), 0, self._random.random()
        while product > limit:
            count += 1
            product *= self._random.random()
        return count


def _mass(low: int, high: int, zipf: float) -> float:
    """The sum of rank ** -zipf; beyond the first thousand, its integral."""
    exact = sum(rank**-zipf for rank in range(low, min(high, 1000)))
    start = max(low, 1000)
    if start >= high:
        return exact
    power = 1 - zipf
    return exact + ((high - 0.5) ** power - (start - 0.5) ** power) / power
