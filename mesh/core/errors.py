"""What can go wrong, by what a caller can do about it.

Each leaf has structured fields and builds its message from them. Foreign exceptions become one of
these at the
boundary where they enter. `wire.status_codes` says what a client sees.
"""

from typing import ClassVar

from mesh.core.ids import ModelId, NodeId, PredictorName

# Both travel in gRPC metadata, which holds 8 KiB with all letters escaped; callers send long names.
MAX_MESSAGE_BYTES = 1_500
MAX_DETAIL_BYTES = 256


class MeshError(Exception):
    """The root.

    `reason` is a stable word for machines, `details` the fields that a client may see. Message and
    details are cut short where they are very long.
    """

    reason: ClassVar[str] = "MeshError"

    def __init__(self, message: str, **details: str) -> None:
        self.message = _clipped(message, MAX_MESSAGE_BYTES)
        super().__init__(self.message)
        self.details = {
            key: _clipped(value, MAX_DETAIL_BYTES) for key, value in details.items() if value
        }


class InvalidRequest(MeshError):
    """The caller must change what it sends.

    `field` names the place, `problem` what is wrong there.
    """

    reason = "InvalidRequest"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
        self.field = field
        self.problem = problem


class ModelNotFound(MeshError):
    """No Predictor has that name."""

    reason = "ModelNotFound"

    def __init__(self, name: str) -> None:
        super().__init__(f"predictor {name!r} not found", predictor=name)
        self.name = name


class NoSuchResource(MeshError):
    """There is no model, node or copy of that name."""

    reason = "NoSuchResource"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} not found", **{kind: name})
        self.kind = kind
        self.name = name


class AlreadyExists(MeshError):
    """The name is taken by something else, which stays as it is."""

    reason = "AlreadyExists"


class NotAsExpected(MeshError):
    """What the caller makes a condition, or the state that it needs, does not hold."""

    reason = "NotAsExpected"


class ModelLoadFailed(MeshError):
    """A model could not be loaded; trying again at once cannot help.

    `holds_memory` is true where the runtime may still hold something of it, so that it must be
    unloaded. `size_bytes` is what it takes, where that is known: it may fit a larger node.
    """

    reason = "ModelLoadFailed"

    def __init__(
        self,
        cause: str,
        *,
        model: ModelId,
        node: NodeId | str = "",
        holds_memory: bool = False,
        size_bytes: int = 0,
    ) -> None:
        super().__init__(f"model load failed: {cause}", model=model, node=node)
        self.cause = cause
        self.model = model
        self.node = node
        self.holds_memory = holds_memory
        self.size_bytes = size_bytes


class NoRuntime(MeshError):
    """No runtime supports the model's type, or the one that it names does not exist."""

    reason = "NoSupportingRuntime"


class NoSupportingRuntime(NoRuntime):
    """No runtime of the mesh serves this model type."""

    reason = "NoSupportingRuntime"

    def __init__(self, model_type: str) -> None:
        super().__init__(
            "No ServingRuntime supports specified model type and/or protocol", model_type=model_type
        )


class RuntimeNotRecognized(NoRuntime):
    """The runtime that the Predictor names does not exist."""

    reason = "RuntimeNotRecognized"

    def __init__(self, runtime: str) -> None:
        super().__init__("Specified runtime name not recognized", runtime=runtime)


class NoCapacity(MeshError):
    """There is no room now: what could be unloaded is in use. It may pass."""

    reason = "NoCapacity"

    def __init__(self, cause: str, *, model: ModelId, node: NodeId | str = "") -> None:
        super().__init__(f"no room for model: {cause}", model=model, node=node)
        self.cause = cause


class NotHere(MeshError):
    """The copy that a peer counted on is gone.

    `revision` is the store revision that this node has seen.
    """

    reason = "NotHere"

    def __init__(self, model: ModelId, *, revision: int = 0) -> None:
        super().__init__(
            f"model {model!r} is not on this node", model=model, revision=str(revision)
        )
        self.model = model
        self.revision = revision


class MethodNotServed(MeshError):
    """The runtime of a model does not serve this RPC."""

    reason = "MethodNotServed"

    def __init__(self, method: str, *, model: ModelId) -> None:
        super().__init__(f"the runtime of {model!r} does not serve {method}", model=model)


class Overloaded(MeshError):
    """A bound was reached."""

    reason = "Overloaded"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"too many {what}: the limit is {limit}", limit=str(limit))
        self.limit = limit


class Unavailable(MeshError):
    """Nobody can serve just now; trying again later may help."""

    reason = "Unavailable"


class DeadlineExceeded(MeshError):
    """The time that the caller gave was over before the model was ready."""

    reason = "DeadlineExceeded"

    def __init__(
        self, name: PredictorName | str, waited_s: float, state: str = "still loading"
    ) -> None:
        super().__init__(f"predictor {name!r} was {state} after {waited_s:.1f} s", predictor=name)
        self.waited_s = waited_s


class Conflict(MeshError):
    """Somebody else changed it first."""

    reason = "Conflict"

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} was changed by somebody else", key=key)
        self.key = key


def _clipped(text: str, max_bytes: int) -> str:
    raw = text.encode(errors="replace")
    if len(raw) <= max_bytes:
        return text
    return raw[:max_bytes].decode(errors="ignore") + "…"
