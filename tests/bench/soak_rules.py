"""What a soak may lose, and what must be there once all is mended and quiet. No I/O.

A change that was asked for and not confirmed, since a fault hit it, may have been made or not: of
its Predictor nothing is said but that all agree on it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import grpc

from mesh.core.ids import PredictorName
from tests.bench import soak_plan as plans
from tests.support.mesh_checks import Picture
from tests.support.mesh_client import Asked

# For how long after a fault what is sent may still meet it: see the rules of the scenarios.
NOTICED_S = {
    plans.KILL: 1.0,
    plans.KILL_RUNTIME: 1.0,
    plans.FREEZE: 5.0,
    plans.CUT: 5.0,
}


@dataclass
class Ledger:
    """What was done, in seconds of the monotonic clock. `faults` has when each that excuses
    something began; `confirmed` the models of the Predictors that must be there, `doubtful` the
    names of those of which the last change was not confirmed."""

    faults: list[tuple[float, str]] = field(default_factory=list)
    deleting_s: dict[str, float] = field(default_factory=dict)
    confirmed: dict[str, str] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)

    def fault(self, kind: str, at_s: float) -> None:
        if kind in NOTICED_S:
            self.faults.append((at_s, kind))

    def change(self, name: str) -> None:
        """Before it is asked for, and until `confirm` or `confirm_deleted`."""
        self.confirmed.pop(name, None)
        self.doubtful.add(name)

    def confirm(self, name: str, model: str) -> None:
        self.doubtful.discard(name)
        self.confirmed[name] = model

    def delete(self, name: str, at_s: float) -> None:
        self.change(name)
        self.deleting_s[name] = at_s

    def confirm_deleted(self, name: str) -> None:
        self.doubtful.discard(name)

    def names(self) -> list[str]:
        """Of all that there are, may be, or were."""
        return sorted(self.confirmed.keys() | self.doubtful | self.deleting_s.keys())

    def excuse(self, asked: Asked) -> str:
        """Why it may have been lost; empty where it may not."""
        if asked.outcome == grpc.StatusCode.UNAVAILABLE.name:
            for at_s, kind in self.faults:
                if asked.start_s < at_s + NOTICED_S[kind] and asked.end_s > at_s:
                    return kind
        deleting_s = self.deleting_s.get(asked.name)
        is_gone = asked.outcome == grpc.StatusCode.NOT_FOUND.name and deleting_s is not None
        return "deleted" if is_gone and asked.end_s > deleting_s else ""

    def amiss(self, picture: Picture) -> Iterator[str]:
        """Predictors that the store should have and has not, or has and should not."""
        for name, model in sorted(self.confirmed.items()):
            predictor = picture.predictors.get(PredictorName(name))
            if predictor is None:
                yield f"{name} is gone"
            elif predictor.active != model:
                yield f"{name} has {predictor.active}, confirmed was {model}"
        for name in sorted(picture.predictors.keys() - self.confirmed.keys() - self.doubtful):
            yield f"{name} rose again" if name in self.deleting_s else f"{name} was made by nobody"


def misanswered(picture: Picture, answers: Iterable[tuple[str, Asked]]) -> Iterator[str]:
    """What is not answered as the store has it. Each answer with the address that gave it."""
    for address, asked in answers:
        predictor = picture.predictors.get(PredictorName(asked.name))
        if predictor is None:
            if asked.outcome != grpc.StatusCode.NOT_FOUND.name:
                yield f"{address} after all, though it is not there: {asked}"
        elif predictor.active != asked.model:
            yield f"{address} after all, not {predictor.active}: {asked}"


@dataclass(frozen=True)
class Result:
    """How a soak of so many seconds ended, in counts; its text is the last line."""

    requests: int
    lost: int
    excused: int
    faults: int
    changes: int
    loads: int
    disagreements: int
    seconds: float
    seed: int

    @property
    def exit_code(self) -> int:
        return 1 if self.lost or self.disagreements else 0

    def __str__(self) -> str:
        return (
            f"soak: {self.requests} requests, {self.lost} lost, {self.excused} excused, "
            f"{self.faults} faults, {self.changes} changes, {self.loads} loads, "
            f"{self.disagreements} disagreements, {self.seconds:.0f} s, seed {self.seed}"
        )
