"""What the first request to a cold model costs over the load itself.

The node is full, so that each first request also evicts a model. The runtime takes a known time for
a load, says how long it really took, and unloads in no time.
"""

import statistics
from dataclasses import dataclass

from tests.bench.calls import Caller, request
from tests.bench.load import percentile
from tests.bench.servers import node

LOAD_MS = 50.0
ROOM = 10


@dataclass(frozen=True, slots=True)
class FirstRequests:
    """Milliseconds over the load; `warm_ms` is what a second request to the same model takes."""

    models: int
    load_ms: float
    over_load_p50_ms: float
    over_load_p99_ms: float
    warm_ms: float


def measure(upstream: str, models: int) -> FirstRequests:
    over_ms, warm_ms = [], []
    with (
        node(upstream, predictors=ROOM + models, room=ROOM, load_ms=LOAD_MS) as cold,
        Caller(cold.server) as caller,
    ):
        caller.check(request("p0"))
        for name in [f"p{number}" for number in range(ROOM, ROOM + models)]:
            message, model = request(name), cold.server.models[name]
            first_s = caller.check(message, model)
            line = cold.next_line()
            if line["loaded"] != model:
                raise RuntimeError(f"{line['loaded']} was loaded for {model}")
            over_ms.append((first_s - line["seconds"]) * 1000)
            warm_ms.append(caller.check(message, model) * 1000)
    return FirstRequests(
        models,
        LOAD_MS,
        statistics.median(over_ms),
        percentile(over_ms, 0.99),
        statistics.median(warm_ms),
    )
