"""How many copies a model should have: more with its use, fewer again when the use is over.

Theory. Each node that holds a Loaded copy looks at it every `look_s` and knows the use of its own
copy only. Routers share the requests evenly between the copies, so its figures times the number of
copies are the use of the model. Measured in copies that would be just busy enough that is the
*need*; it counts once it has lasted from one look to the next, so that a burst is no need. The
first holder in rendezvous order lets copies grow, the last one gives up its own: one node acts, and
no two. Copies grow when the need is above their number. They shrink only when fewer would have been
well enough for the highest need of the last `keep_s`; those above that are surplus, be it from a
race or a healed partition, and go after `trim_s`, one by one. A model that is used again and again,
if seldom, is worth a second copy where there is free room.

`Past` is what a holder remembers of one copy, from the moment that it is Loaded; `look` is its one
step. Nothing is decided about a model without a Loaded copy: that is placement's.
"""

from dataclasses import dataclass, replace
from math import ceil

MINUTE_S = 60.0
# The past is kept in so many pieces, of which the oldest is dropped as a whole.
PIECES = 5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When copies grow and shrink; docs/decisions/0007 says why these figures.

    A copy is busy enough with `rps` requests a second or `in_flight` requests at a time, the mean
    between two looks. `shrink_below`: of that, what fewer copies must be able to stay under.
    `step`: of the nodes that are fit, how many may get a copy at once.
    """

    rps: float = 2000 / 60
    in_flight: float = 8.0
    shrink_below: float = 0.7
    step: float = 0.5
    look_s: float = 5.0
    keep_s: float = 300.0
    trim_s: float = 15.0
    again_after_s: float = 420.0
    again_within_s: float = 2400.0


DEFAULTS = Thresholds()


@dataclass(frozen=True, slots=True)
class Situation:
    """What the holder of a Loaded copy sees.

    `rps` and `in_flight` are those of its own copy since its last look. `loaded` counts its own
    copy too, `rank` is its place among these in rendezvous order, 0 the first. `fit` counts the
    nodes that have or could have a copy. `max_copies` of 0 is no limit.
    """

    rps: float
    in_flight: float
    loaded: int
    loading: int
    rank: int
    fit: int
    min_copies: int = 0
    max_copies: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one copy. `used` are the minutes of use, as bits, the last one lowest.

    `peaks` are the highest needs of pieces of `keep_s`, by the number of the piece. `again_s`: when
    a second copy was asked for, or this one came to be, for being used again and again.
    """

    peaks: tuple[tuple[int, float], ...] = ()
    last_need: float = 0.0
    used: int = 0
    minute: int = 0
    surplus_since_s: float | None = None
    again_s: float | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    reason: str


@dataclass(frozen=True, slots=True)
class Grow:
    """There should be `to` copies, those that are Loading counted; `fill`: in free room only."""

    to: int
    reason: str
    fill: bool = False


@dataclass(frozen=True, slots=True)
class Shrink:
    """The copy of the one who is told so should go."""

    reason: str


Verdict = Keep | Grow | Shrink


def born(*, now: float, again: bool = False) -> Past:
    """The past of a copy that is Loaded now; `again`: in answer to a Grow with `fill`."""
    return Past(minute=int(now // MINUTE_S), again_s=now if again else None)


def look(
    past: Past, situation: Situation, *, now: float, thresholds: Thresholds = DEFAULTS
) -> tuple[Past, Verdict]:
    """The holder's step, every `look_s`. `now`: seconds of a clock that only goes forward."""
    past, lasting = _remember(past, situation, now, thresholds)
    past = _watch_surplus(past, situation, now, thresholds)
    if (grow := _by_rule(situation) or _by_need(situation, lasting, thresholds)) is not None:
        return past, grow
    if _is_second_due(past, situation, now, thresholds):
        return replace(past, again_s=now), Grow(2, "it is used again and again", fill=True)
    return past, _shrinking(past, situation, now, thresholds)


def need(situation: Situation, thresholds: Thresholds = DEFAULTS) -> float:
    """How many copies would be just busy enough with the use that there is."""
    busy = max(
        situation.rps / thresholds.rps,
        situation.in_flight / thresholds.in_flight,
    )
    return busy * situation.loaded


def _remember(
    past: Past, situation: Situation, now: float, thresholds: Thresholds
) -> tuple[Past, float]:
    """The past with this look in it, and the need that lasts."""
    current = need(situation, thresholds)
    lasting = min(current, past.last_need)
    piece = int(now * PIECES // thresholds.keep_s)
    peaks = {at: peak for at, peak in past.peaks if at > piece - PIECES}
    peaks[piece] = max(peaks.get(piece, 0.0), lasting)
    minute = int(now // MINUTE_S)
    width = int(thresholds.again_within_s // MINUTE_S) + 1
    aged = past.used << min(minute - past.minute, width) & (1 << width) - 1
    used = aged | (situation.rps > 0)
    after = replace(past, peaks=tuple(peaks.items()), last_need=current, used=used, minute=minute)
    return after, lasting


def _is_used_again(past: Past, now: float, thresholds: Thresholds) -> bool:
    """Whether two of the uses that are remembered are far enough apart, or it came from such."""
    if past.again_s is not None and now - past.again_s < thresholds.again_within_s:
        return True
    if not past.used:
        return False
    last = (past.used & -past.used).bit_length()
    return (past.used.bit_length() - last) * MINUTE_S >= thresholds.again_after_s


def _bounds(situation: Situation) -> tuple[int, int]:
    least = max(1, situation.min_copies)
    most = situation.max_copies or situation.fit
    return least, max(least, most)


def _justified(past: Past, situation: Situation, now: float, thresholds: Thresholds) -> int:
    """How many copies there may be without one of them being surplus."""
    least, most = _bounds(situation)
    peak = max(peak for _, peak in past.peaks)
    useful = int(peak / thresholds.shrink_below) + 1
    again = 2 if _is_used_again(past, now, thresholds) else 1
    return min(most, max(least, useful, again))


def _watch_surplus(past: Past, situation: Situation, now: float, thresholds: Thresholds) -> Past:
    if situation.loaded <= _justified(past, situation, now, thresholds):
        return replace(past, surplus_since_s=None)
    since_s = now if past.surplus_since_s is None else past.surplus_since_s
    return replace(past, surplus_since_s=since_s)


def _by_rule(situation: Situation) -> Grow | None:
    least = min(_bounds(situation)[0], situation.fit)
    if situation.rank == 0 and least > situation.loaded + situation.loading:
        return Grow(least, f"the Predictor asks for {situation.min_copies}")
    return None


def _by_need(situation: Situation, lasting: float, thresholds: Thresholds) -> Grow | None:
    there = situation.loaded + situation.loading
    step = max(1, int(situation.fit * thresholds.step))
    wanted = min(ceil(lasting), _bounds(situation)[1], situation.fit, there + step)
    if situation.rank == 0 and wanted > there:
        rate, width = situation.rps, situation.in_flight
        return Grow(wanted, f"{rate:.1f} requests/s a copy, {width:.1f} at a time")
    return None


def _is_second_due(past: Past, situation: Situation, now: float, thresholds: Thresholds) -> bool:
    """Asked again after a while: there may not have been room, or the copy was evicted."""
    is_rested = past.again_s is None or now - past.again_s >= thresholds.again_after_s
    is_alone = (situation.rank, situation.loaded, situation.loading) == (0, 1, 0)
    may_grow = min(_bounds(situation)[1], situation.fit) > 1
    is_used = situation.rps > 0 and _is_used_again(past, now, thresholds)
    return is_rested and is_alone and may_grow and is_used


def _shrinking(
    past: Past, situation: Situation, now: float, thresholds: Thresholds
) -> Keep | Shrink:
    if past.surplus_since_s is None:
        return Keep("enough")
    if situation.loading:
        return Keep("a copy is on its way")
    if situation.rank != situation.loaded - 1:
        return Keep("the last in order goes first")
    if now - past.surplus_since_s < thresholds.trim_s:
        return Keep("too many, but not for long yet")
    return Shrink(f"{situation.loaded} copies, and fewer are enough")
