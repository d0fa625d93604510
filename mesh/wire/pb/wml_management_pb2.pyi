from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREDICTOR: _ClassVar[Kind]
    MODEL: _ClassVar[Kind]
    NODE: _ClassVar[Kind]
    COPY: _ClassVar[Kind]
    RUNTIME: _ClassVar[Kind]
PREDICTOR: Kind
MODEL: Kind
NODE: Kind
COPY: Kind
RUNTIME: Kind

class SetRuntimesRequest(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, json: _Optional[_Iterable[str]] = ...) -> None: ...

class SetRuntimesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("kind", "name", "follow")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    name: str
    follow: bool
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., name: _Optional[str] = ..., follow: _Optional[bool] = ...) -> None: ...

class ReadEvent(_message.Message):
    __slots__ = ("name", "json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    json: str
    def __init__(self, name: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("node", "is_passed_on", "wait")
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_PASSED_ON_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    node: str
    is_passed_on: bool
    wait: bool
    def __init__(self, node: _Optional[str] = ..., is_passed_on: _Optional[bool] = ..., wait: _Optional[bool] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("is_handed_over", "kept")
    IS_HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    is_handed_over: bool
    kept: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, is_handed_over: _Optional[bool] = ..., kept: _Optional[_Iterable[str]] = ...) -> None: ...

class ForgetFailureRequest(_message.Message):
    __slots__ = ("predictor", "model", "node", "is_passed_on")
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_PASSED_ON_FIELD_NUMBER: _ClassVar[int]
    predictor: str
    model: str
    node: str
    is_passed_on: bool
    def __init__(self, predictor: _Optional[str] = ..., model: _Optional[str] = ..., node: _Optional[str] = ..., is_passed_on: _Optional[bool] = ...) -> None: ...

class ForgetFailureResponse(_message.Message):
    __slots__ = ("nodes", "unreachable")
    NODES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nodes: _Optional[_Iterable[str]] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("json", "dry_run", "owner")
    JSON_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    json: str
    dry_run: bool
    owner: str
    def __init__(self, json: _Optional[str] = ..., dry_run: _Optional[bool] = ..., owner: _Optional[str] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("result",)
    class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNCHANGED: _ClassVar[ApplyResponse.Result]
        CREATED: _ClassVar[ApplyResponse.Result]
        CONFIGURED: _ClassVar[ApplyResponse.Result]
    UNCHANGED: ApplyResponse.Result
    CREATED: ApplyResponse.Result
    CONFIGURED: ApplyResponse.Result
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: ApplyResponse.Result
    def __init__(self, result: _Optional[_Union[ApplyResponse.Result, str]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, json: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("name", "owner")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("json", "name", "progress")
    JSON_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    json: str
    name: str
    progress: str
    def __init__(self, json: _Optional[str] = ..., name: _Optional[str] = ..., progress: _Optional[str] = ...) -> None: ...

class UsageRequest(_message.Message):
    __slots__ = ("is_passed_on",)
    IS_PASSED_ON_FIELD_NUMBER: _ClassVar[int]
    is_passed_on: bool
    def __init__(self, is_passed_on: _Optional[bool] = ...) -> None: ...

class UsageResponse(_message.Message):
    __slots__ = ("nodes", "unreachable")
    NODES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeUsage]
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeUsage, _Mapping]]] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...

class NodeUsage(_message.Message):
    __slots__ = ("node", "monotonic_s", "used_bytes", "capacity_bytes", "copies")
    NODE_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_S_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    node: str
    monotonic_s: float
    used_bytes: int
    capacity_bytes: int
    copies: _containers.RepeatedCompositeFieldContainer[CopyUsage]
    def __init__(self, node: _Optional[str] = ..., monotonic_s: _Optional[float] = ..., used_bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., copies: _Optional[_Iterable[_Union[CopyUsage, _Mapping]]] = ...) -> None: ...

class CopyUsage(_message.Message):
    __slots__ = ("model", "size_bytes", "requests", "in_flight", "calls")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    model: str
    size_bytes: int
    requests: int
    in_flight: int
    calls: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., size_bytes: _Optional[int] = ..., requests: _Optional[int] = ..., in_flight: _Optional[int] = ..., calls: _Optional[_Iterable[int]] = ...) -> None: ...
