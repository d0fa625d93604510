"""What a Predictor may answer with: the model that it had at the last change, or a newer one."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class History:
    """`models` in the order in which they were applied; `floors`: from when on nothing before an
    index may answer; `deleted_s` is None where it exists."""

    models: list[str] = field(default_factory=list)
    floors: list[tuple[float, int]] = field(default_factory=list)
    deleted_s: float | None = None


class Versions:
    """Told by whoever changes Predictors, asked by whoever sees answers. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._histories: defaultdict[str, History] = defaultdict(History)

    def applied(self, name: str, model: str) -> None:
        """Before it is sent: from now on it may answer."""
        history = self._histories[name]
        history.deleted_s = None
        if history.models[-1:] != [model]:
            history.models.append(model)

    def settled(self, name: str, model: str) -> None:
        """Every node knows that the change to this model is done: nothing older may answer what is
        asked from now on."""
        history = self._histories[name]
        index = max(at for at, known in enumerate(history.models) if known == model)
        history.floors.append((self._clock(), index))

    def deleted(self, name: str) -> None:
        """The delete has returned."""
        self._histories[name].deleted_s = self._clock()

    def deleted_s(self, name: str) -> float | None:
        return self._histories[name].deleted_s

    def latest(self, name: str) -> str:
        return self._histories[name].models[-1]

    def index(self, name: str, model: str) -> int:
        """How many changes came before the one that made this model."""
        return self._histories[name].models.index(model)

    def names(self) -> list[str]:
        """Those that exist."""
        return [name for name, history in self._histories.items() if history.deleted_s is None]

    def is_allowed(self, name: str, model: str, asked_s: float) -> bool:
        """Whether a request of that moment may be answered by this model."""
        history = self._histories[name]
        floor = max((index for since_s, index in history.floors if since_s <= asked_s), default=0)
        return model in history.models[floor:]
