"""The one table from errors to gRPC status, the one from there to HTTP, and the details that go
with an error.
"""

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from mesh.core import errors
from mesh.core.errors import MeshError

DOMAIN = "wmlserving.ai.ibm.com"
DETAILS_KEY = "grpc-status-details-bin"

CODES: dict[type[MeshError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.NoSuchResource: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotAsExpected: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelLoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoRuntime: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoCapacity: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotHere: grpc.StatusCode.UNAVAILABLE,
    errors.MethodNotServed: grpc.StatusCode.UNIMPLEMENTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Conflict: grpc.StatusCode.ABORTED,
}
# As google.rpc.code has it, and gRPC-gateway, behind which ModelMesh's REST was.
HTTP: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}


def code(error: MeshError) -> grpc.StatusCode:
    """The status of an error: that of its class, or of the nearest one above it in the table."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def details(error: MeshError) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata with an ErrorInfo: the reason and the fields of the error."""
    packed = Any()
    packed.Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details))
    status = Status(code=code(error).value[0], message=error.message, details=[packed])
    return ((DETAILS_KEY, status.SerializeToString()),)
