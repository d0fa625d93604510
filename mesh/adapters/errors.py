"""What an adapter cannot do, by what a node may conclude; `server` has the table to gRPC status."""

from mesh.core.ids import ModelId


class AdapterError(Exception):
    """The root; `message` is for the user who made the Predictor."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidModel(AdapterError):
    """The request itself is wrong: `field` says where. Nothing was attempted."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnusableFiles(AdapterError):
    """The model's files were not found, or are not what its type needs. Nothing is held."""


class LoadFailed(AdapterError):
    """The model server could not load it. It has been unloaded again."""

    def __init__(self, server: str, cause: str) -> None:
        super().__init__(f"{server} could not load the model: {cause}")
        self.cause = cause


class UnloadFailed(AdapterError):
    """The model server still holds the model after it was told to let go of it."""

    def __init__(self, server: str, cause: str) -> None:
        super().__init__(f"{server} could not unload the model: {cause}")
        self.cause = cause


class LoadTimedOut(AdapterError):
    """The load took longer than it may. It has been undone."""

    def __init__(self, limit_s: float, stage: str) -> None:
        super().__init__(f"the load took longer than {limit_s:g} s, it was {stage}")
        self.stage = stage


class LoadStopped(AdapterError):
    """The model was unloaded while it was loading."""

    def __init__(self, model: ModelId) -> None:
        super().__init__(f"the load of {model!r} was stopped by an unload")
        self.model = model


class ModelNotLoaded(AdapterError):
    """It is asked about a model that is not loaded."""

    def __init__(self, model: ModelId) -> None:
        super().__init__(f"model {model!r} is not loaded")
        self.model = model


class ServerGone(AdapterError):
    """The model server is away or not ready yet; what it held is gone, or will be."""

    def __init__(self, server: str) -> None:
        super().__init__(f"{server} is not ready")
