"""Whether slow calls to one model delay those to another.

256 calls that the backend answers after two seconds go to one model while one request at a time
goes to another: its times while all of the slow calls are pending, against those before and after,
in the same run. What the burst itself costs, as it comes and as it is answered, is told apart.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.calls import Caller, request
from tests.bench.load import Answered, Load, Running, message_file, percentile
from tests.bench.servers import MODELS, Server

SLOW_CALLS = 256
SLOW_MS = 2000
LEAD_S = 0.8
FAST_S = LEAD_S + SLOW_MS / 1000 + LEAD_S


@dataclass(frozen=True, slots=True)
class SlowCalls:
    """Milliseconds; `burst_max_ms` is the longest call while the burst came or was answered."""

    p50_without_ms: float
    p99_without_ms: float
    added_p50_ms: float
    added_p99_ms: float
    burst_max_ms: float


def measure(server: Server, rounds: int) -> SlowCalls:
    """The slow calls go to its second model. Medians of the rounds."""
    done = [_round(server, server.by(MODELS[1])) for _ in range(rounds)]
    return SlowCalls(
        *(statistics.median(getattr(one, what) for one in done) for what in SlowCalls.__slots__)
    )


def _round(server: Server, slow: Server) -> SlowCalls:
    fast_message = request(server.named)
    fast_file = message_file(fast_message, f"{server.name}-fast")
    slow_message = request(slow.named, request_id=f"sleep-{SLOW_MS}")
    slow_file = message_file(slow_message, f"{server.name}-slow")
    with Caller(server) as caller, Caller(slow) as slow_caller:
        caller.check(fast_message)
        slow_caller.check(request(slow.named))
        fast = Running(Load(fast_file, 1, seconds=FAST_S), server)
        time.sleep(LEAD_S)
        pending = Running(Load(slow_file, SLOW_CALLS, SLOW_CALLS), slow).wait()
        answered = fast.wait().answered
        caller.check(fast_message)
        slow_caller.check(slow_message)
    return _compare(answered, pending.answered)


def _compare(fast: Sequence[Answered], slow: Sequence[Answered]) -> SlowCalls:
    came_s = min(call.start_s for call in slow)
    # The backend has begun all of them by then, and has answered none before `first_s`.
    all_came_s = max(call.end_s for call in slow) - SLOW_MS / 1000
    first_s = min(call.end_s for call in slow)
    gone_s = max(call.end_s for call in slow)
    without = [one.took_s for one in fast if one.end_s < came_s or one.start_s > gone_s]
    pending = [one.took_s for one in fast if one.start_s > all_came_s and one.end_s < first_s]
    burst = [
        one.took_s
        for one in fast
        if one.end_s > came_s
        and one.start_s < gone_s
        and not (one.start_s > all_came_s and one.end_s < first_s)
    ]
    p50, p99 = (percentile(without, share) * 1000 for share in (0.5, 0.99))
    return SlowCalls(
        p50,
        p99,
        percentile(pending, 0.5) * 1000 - p50,
        percentile(pending, 0.99) * 1000 - p99,
        max(burst) * 1000,
    )
