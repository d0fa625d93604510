"""The one table from errors to gRPC status: complete, and as docs/architecture says."""

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from mesh.core import errors
from mesh.core.errors import MeshError
from mesh.core.ids import ModelId
from mesh.wire import status_codes

EXPECTED = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.NoSuchResource: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotAsExpected: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelLoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoSupportingRuntime: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RuntimeNotRecognized: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoCapacity: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotHere: grpc.StatusCode.UNAVAILABLE,
    errors.MethodNotServed: grpc.StatusCode.UNIMPLEMENTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Conflict: grpc.StatusCode.ABORTED,
}
LOAD_FAILED = errors.ModelLoadFailed("no such object", model=ModelId("p-1"), node="n1")


def all_below(kind: type[MeshError]) -> set[type[MeshError]]:
    direct = set(kind.__subclasses__())
    return direct.union(*(all_below(child) for child in direct))


def leaves() -> set[type[MeshError]]:
    """Those of core; those that other packages add are below one of them."""
    kinds = {kind for kind in all_below(MeshError) if kind.__module__ == errors.__name__}
    return {kind for kind in kinds if not kinds.intersection(kind.__subclasses__())}


def bare(kind: type[MeshError]) -> MeshError:
    """One without its fields: the status depends on the class alone."""
    return kind.__new__(kind)


def test_every_leaf_has_a_status_as_the_design_says():
    assert {kind: status_codes.code(bare(kind)) for kind in leaves()} == EXPECTED


def test_every_error_of_any_package_is_below_one_in_the_table():
    for kind in all_below(MeshError):
        assert set(kind.__mro__).intersection(status_codes.CODES), kind


def test_table_has_nothing_that_is_no_error_of_core():
    assert all_below(MeshError).issuperset(status_codes.CODES)


def test_error_below_one_in_the_table_has_its_status():
    class Special(errors.Overloaded):
        pass

    assert status_codes.code(bare(Special)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_error_that_the_table_does_not_know_is_internal():
    assert status_codes.code(MeshError("surprise")) is grpc.StatusCode.INTERNAL


def test_details_carry_the_reason_and_the_fields():
    ((key, value),) = status_codes.details(LOAD_FAILED)
    assert key == "grpc-status-details-bin"
    status = Status.FromString(value)
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert status.message == "model load failed: no such object"
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("ModelLoadFailed", "wmlserving.ai.ibm.com")
    assert info.metadata == {"model": "p-1", "node": "n1"}


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelNotFound("ü" * 1_000_000),
        errors.ModelLoadFailed("\n" * 1_000_000, model=ModelId("m" * 300)),
        errors.InvalidRequest("f" * 1_000_000, "p" * 1_000_000),
        errors.Unavailable("x" * 1_000_000, one="1" * 10_000, two="2" * 10_000),
    ],
)
def test_error_with_huge_fields_fits_into_metadata(error):
    ((_, value),) = status_codes.details(error)
    # gRPC refuses 8 KiB of metadata; bytes become base64, letters of a message three each.
    assert len(value) * 4 / 3 + 3 * len(error.message.encode()) < 8_000


def test_every_grpc_status_has_one_in_http():
    assert set(status_codes.HTTP) == set(grpc.StatusCode)
    assert {code.name for code, status in status_codes.HTTP.items() if status < 400} == {"OK"}
