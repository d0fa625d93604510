"""What happened to each Predictor, for people: the last few things, as this node saw them.

It is fed where the view changes: `look` compares what the view has of a Predictor with what it had
before, for which `keep` is called first where the Predictor itself changes. A move of a copy is
looked at one by one, so that none is lost; what happened before this node started is not known.
What happens again takes the place of the time before and counts, so that a model which comes and
goes does not crowd out what else happened. Kept: 20 entries a Predictor, until it is deleted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.records import CopyRecord, CopyState, Predictor
from mesh.core.runtimes import missing_runtime
from mesh.core.view import View

MAX_ENTRIES = 20
MAX_MESSAGE_CHARS = 300

# What the move of a copy is called, and what it says. Moves that are not here are none to tell of.
MOVES: dict[tuple[CopyState | None, CopyState | None], tuple[str, str]] = {
    (CopyState.LOADED, CopyState.UNLOADING): ("Evicted", "made room for other models"),
    (CopyState.LOADED, None): ("Lost", "the runtime does not hold it any more"),
    (CopyState.LOADING, None): ("Deferred", "not loaded for now; a request loads it"),
    (CopyState.UNLOADING, None): ("Unloaded", ""),
    (CopyState.FAILED, None): ("Forgiven", "the failure was forgotten; it may be tried again"),
}


@dataclass(frozen=True, slots=True)
class Happening:
    """`time_s`: when it happened last, in seconds since the epoch; `first_s`: `count` times ago.

    `node` is empty where it happened on none.
    """

    time_s: float
    what: str
    model: ModelId
    message: str = ""
    node: NodeId | str = ""
    count: int = 1
    first_s: float = 0.0

    def is_again(self, other: "Happening") -> bool:
        """Whether the same happened, if at another time."""
        same = (other.what, other.model, other.message, other.node)
        return (self.what, self.model, self.message, self.node) == same


@dataclass(slots=True)
class _Past:
    """What was known of a Predictor when it was looked at last."""

    predictor: Predictor
    copies: tuple[CopyRecord, ...] = ()
    problem: str = ""
    entries: list[Happening] = field(default_factory=list)

    @classmethod
    def of(cls, predictor: Predictor) -> "_Past":
        """One of which nothing is known but that it was created."""
        past = cls(predictor)
        past.add([Happening(predictor.created_s, "Created", predictor.target)])
        return past

    @property
    def is_bare(self) -> bool:
        return self == _Past.of(self.predictor)

    def add(self, happenings: Iterable[Happening]) -> None:
        for new in happenings:
            old = next((entry for entry in self.entries if entry.is_again(new)), None)
            if old is None:
                self.entries.append(replace(new, first_s=new.time_s))
            else:
                self.entries.remove(old)
                self.entries.append(replace(new, first_s=old.first_s, count=old.count + 1))
        del self.entries[:-MAX_ENTRIES]


class History:
    """`now` gives seconds since the epoch, for what has no time of its own."""

    def __init__(self, view: View, now: Callable[[], float]) -> None:
        self._view = view
        self._now = now
        # Without those that are bare: most are, and there are many of them.
        self._pasts: dict[PredictorName, _Past] = {}

    def of(self, name: PredictorName) -> tuple[Happening, ...]:
        """What happened to it, in the order of the last times."""
        past = self._past(name)
        return () if past is None else tuple(past.entries)

    def keep(self, name: PredictorName) -> None:
        """Remembers what the view has of this Predictor, which is about to change."""
        if past := self._past(name):
            self._pasts[name] = past

    def look(self, name: PredictorName) -> None:
        """Takes in how the view has changed for this Predictor; nothing where it has not."""
        predictor = self._view.predictors.get(name)
        past = self._pasts.pop(name, None)
        if predictor is None:
            return
        if past is None or past.predictor.created_s != predictor.created_s:
            past = _Past.of(predictor)
        elif past.predictor != predictor:
            past.add(_changes(past.predictor, predictor, self._now()))
            past.predictor = predictor
        self._look_at_copies(past)
        self._look_at_problem(past)
        if not past.is_bare:
            self._pasts[name] = past

    def _past(self, name: PredictorName) -> _Past | None:
        if past := self._pasts.get(name):
            return past
        predictor = self._view.predictors.get(name)
        return None if predictor is None else _Past.of(predictor)

    def _look_at_copies(self, past: _Past) -> None:
        models = dict.fromkeys((past.predictor.active, past.predictor.target))
        after = tuple(copy for model in models for copy in self._view.copies(model).values())
        if after == past.copies:
            return
        known = {(copy.model, copy.node): copy for copy in past.copies if copy.model in models}
        found = {(copy.model, copy.node): copy for copy in after}
        past.copies = after
        for key in known | found:
            past.add(_move(known.get(key), found.get(key), self._now()))

    def _look_at_problem(self, past: _Past) -> None:
        """A model that no runtime can serve has no copy that could fail."""
        target = past.predictor.target
        model = self._view.models.get(target)
        missing = model and missing_runtime(model, self._view.nodes.values(), self._view.runtimes)
        problem = missing.message if missing else ""
        if problem and problem != past.problem:
            past.add([Happening(self._now(), "Failed", target, problem)])
        past.problem = problem


def _changes(before: Predictor, after: Predictor, now: float) -> list[Happening]:
    changes = []
    if after.generation != before.generation:
        message = "" if after.target != before.target else "the model stays the same"
        changes.append(Happening(now, "Configured", after.target, message))
    if after.active != before.active and after.served:
        message = f"it answers from now on, in place of {before.active}"
        changes.append(Happening(now, "Switched", after.active, message))
    return changes


def _move(before: CopyRecord | None, after: CopyRecord | None, now: float) -> list[Happening]:
    was = None if before is None else before.state
    state = None if after is None else after.state
    copy = after or before
    if copy is None or was is state:
        return []
    since_s = copy.since_s if after else now
    if state in (CopyState.LOADING, CopyState.LOADED, CopyState.FAILED):
        message = copy.reason[:MAX_MESSAGE_CHARS] if state is CopyState.FAILED else ""
        return [Happening(since_s, str(state), copy.model, message, copy.node)]
    if (was, state) not in MOVES:
        return []
    what, message = MOVES[was, state]
    return [Happening(since_s, what, copy.model, message, copy.node)]
