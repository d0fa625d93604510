"""The dataplane file: which RPCs it adds, and what is wrong with it."""

import pytest

from mesh.wire.dataplane import NONE, Dataplane, is_foreign, parse_dataplane
from mesh.wire.documents import InvalidManifest

PREDICT = "/tensorflow.serving.PredictionService/Predict"
# As ModelMesh Serving ships it.
SHIPPED = {
    "rpcConfigs": {
        "inference.GRPCInferenceService/ModelInfer": {"idExtractionPath": [1], "vModelId": True},
        "inference.GRPCInferenceService/ModelMetadata": {"idExtractionPath": [1], "vModelId": True},
        "tensorflow.serving.PredictionService/Predict": {
            "idExtractionPath": [1, 1],
            "vModelId": True,
        },
    },
    "allowOtherRpcs": True,
}


def test_file_of_modelmesh_is_taken():
    assert parse_dataplane(SHIPPED) == Dataplane({PREDICT: (1, 1)}, are_others_allowed=True)


@pytest.mark.parametrize("document", [None, {}, {"rpcConfigs": {}, "allowOtherRpcs": False}])
def test_nothing_is_added_without_a_word(document):
    assert parse_dataplane(document) == NONE


def test_rpc_without_a_path_is_taken_by_metadata():
    assert parse_dataplane({"rpcConfigs": {"a.B/C": {}}}).paths == {"/a.B/C": ()}


@pytest.mark.parametrize(
    ("rpc", "config", "problem"),
    [
        ("a.B", {}, "rpcConfigs.a.B: must be package.Service/Method"),
        ("a.B/C/D", {}, "rpcConfigs.a.B/C/D: must be package.Service/Method"),
        ("grpc.health.v1.Health/Check", {}, "is gRPC's own"),
        ("a.B/C", {"vModelId": False}, "vModelId must be true"),
        ("inference.GRPCInferenceService/ModelInfer", {"idExtractionPath": [2]}, "must be [1]"),
        ("a.B/C", {"idExtractionPath": [0]}, "must be greater than or equal to 1"),
        ("a.B/C", {"idPath": [1]}, "unknown field"),
    ],
)
def test_problems_name_the_rpc(rpc, config, problem):
    with pytest.raises(InvalidManifest) as caught:
        parse_dataplane({"rpcConfigs": {rpc: config}})
    assert any(problem in said for said in caught.value.problems), caught.value.problems


def test_all_problems_are_told_at_once():
    listed = {
        "a.B": {"vModelId": False},
        "a.B/C": {"idExtractionPath": ["x"]},
        "grpc.x/Y": {},
        "inference.GRPCInferenceService/ModelInfer": {"idExtractionPath": [2]},
    }
    with pytest.raises(InvalidManifest) as caught:
        parse_dataplane({"rpcConfigs": listed, "allowOtherRpcs": "yes"})
    places = sorted(said.partition(": ")[0] for said in caught.value.problems)
    assert places == [
        "allowOtherRpcs",
        "rpcConfigs.'a.B/C'.idExtractionPath[0]",
        "rpcConfigs.a.B",
        "rpcConfigs.a.B",
        "rpcConfigs.grpc.x/Y",
        "rpcConfigs.inference.GRPCInferenceService/ModelInfer",
    ]


def test_file_that_is_no_mapping_is_refused():
    with pytest.raises(InvalidManifest, match="must be a mapping"):
        parse_dataplane([])


def test_what_is_foreign():
    assert is_foreign(PREDICT)
    assert not is_foreign("/inference.GRPCInferenceService/ModelInfer")
    assert not is_foreign("/grpc.health.v1.Health/Check")
