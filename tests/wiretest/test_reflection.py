"""gRPC reflection as clients use it: services, symbols of each sort, and fields' JSON names."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc as pb_grpc

from tests.support.world import World, world

NOT_FOUND = 5


async def ask(w: World, **request: str) -> pb.ServerReflectionResponse:
    async def one():
        yield pb.ServerReflectionRequest(**request)

    answers = pb_grpc.ServerReflectionStub(w.channel).ServerReflectionInfo(one(), timeout=5)
    return await anext(aiter(answers))


def files(answer: pb.ServerReflectionResponse) -> dict[str, FileDescriptorProto]:
    found = map(
        FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto
    )
    return {file.package: file for file in found}


async def test_services_are_listed():
    async with world() as w:
        listed = (await ask(w, list_services="")).list_services_response.service
    assert {service.name for service in listed} == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize(
    ("symbol", "package"),
    [
        ("inference.GRPCInferenceService", "inference"),
        ("inference.GRPCInferenceService.ModelInfer", "inference"),
        ("inference.ModelInferRequest", "inference"),
        ("inference.ModelInferRequest.InferInputTensor", "inference"),
        ("inference.ModelInferRequest.model_name", "inference"),
        ("grpc.health.v1.Health.Check", "grpc.health.v1"),
        ("google.rpc.ErrorInfo", "google.rpc"),
    ],
)
async def test_symbol_is_found_in_its_file(symbol, package):
    async with world() as w:
        assert package in files(await ask(w, file_containing_symbol=symbol))


@pytest.mark.parametrize(
    "symbol",
    ["inference.Nothing", "inference.GRPCInferenceService.Nothing", "nothing.Nothing", "x", ""],
)
async def test_symbol_that_there_is_none_of_is_not_found(symbol):
    async with world() as w:
        answer = await ask(w, file_containing_symbol=symbol)
    assert answer.error_response.error_code == NOT_FOUND


async def test_fields_have_their_json_names_nested_ones_too():
    async with world() as w:
        file = files(await ask(w, file_containing_symbol="inference.ModelInferRequest"))[
            "inference"
        ]
    (request,) = [each for each in file.message_type if each.name == "ModelInferRequest"]
    assert "modelName" in {field.json_name for field in request.field}
    (contents,) = [each for each in file.message_type if each.name == "InferTensorContents"]
    assert "fp32Contents" in {field.json_name for field in contents.field}
    nested = [field for inner in request.nested_type for field in inner.field]
    assert nested
    assert all(field.json_name for field in nested)
