from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("node", "revision")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    node: str
    revision: int
    def __init__(self, node: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class FarewellRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class FarewellResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RecollectRequest(_message.Message):
    __slots__ = ("store_id", "revision")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    store_id: str
    revision: int
    def __init__(self, store_id: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Recollected(_message.Message):
    __slots__ = ("revision", "entries")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    entries: _containers.RepeatedCompositeFieldContainer[Recollection]
    def __init__(self, revision: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Recollection, _Mapping]]] = ...) -> None: ...

class Recollection(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class EnsureLoadedRequest(_message.Message):
    __slots__ = ("model", "purpose", "revision", "protected", "used_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    USED_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    purpose: str
    revision: int
    protected: _containers.RepeatedScalarFieldContainer[str]
    used_s: float
    def __init__(self, model: _Optional[str] = ..., purpose: _Optional[str] = ..., revision: _Optional[int] = ..., protected: _Optional[_Iterable[str]] = ..., used_s: _Optional[float] = ...) -> None: ...

class EnsureLoadedResponse(_message.Message):
    __slots__ = ("loaded", "failed", "not_here", "since_s")
    LOADED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    NOT_HERE_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    loaded: Loaded
    failed: Failed
    not_here: NotHere
    since_s: float
    def __init__(self, loaded: _Optional[_Union[Loaded, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., not_here: _Optional[_Union[NotHere, _Mapping]] = ..., since_s: _Optional[float] = ...) -> None: ...

class Loaded(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class NotHere(_message.Message):
    __slots__ = ("reason", "revision")
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    reason: str
    revision: int
    def __init__(self, reason: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...
