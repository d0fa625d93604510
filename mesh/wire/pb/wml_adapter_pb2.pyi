from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Event(_message.Message):
    __slots__ = ("storage_key_changed", "load_progress", "runtime_lost", "alive")
    STORAGE_KEY_CHANGED_FIELD_NUMBER: _ClassVar[int]
    LOAD_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_LOST_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    storage_key_changed: StorageKeyChanged
    load_progress: LoadProgress
    runtime_lost: RuntimeLost
    alive: Alive
    def __init__(self, storage_key_changed: _Optional[_Union[StorageKeyChanged, _Mapping]] = ..., load_progress: _Optional[_Union[LoadProgress, _Mapping]] = ..., runtime_lost: _Optional[_Union[RuntimeLost, _Mapping]] = ..., alive: _Optional[_Union[Alive, _Mapping]] = ...) -> None: ...

class StorageKeyChanged(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class LoadProgress(_message.Message):
    __slots__ = ("model_id", "stage", "done_bytes", "total_bytes")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    stage: str
    done_bytes: int
    total_bytes: int
    def __init__(self, model_id: _Optional[str] = ..., stage: _Optional[str] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class Alive(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RuntimeLost(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
