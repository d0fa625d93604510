"""The JSON Schemas: current, complete, and of one mind with the models that check files."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mesh.core.errors import InvalidRequest
from mesh.wire.manifests import parse_predictor
from mesh.wire.runtime_manifest import parse_runtime
from mesh.wire.schemas import DIALECT, MODELS, schema
from router.cli.main import wml_serving
from tests.support.json_schema import problems
from tests.support.runtimes import mlserver_container, mlserver_runtime

ROOT = Path(__file__).parents[2]
PARSERS = {"predictor": parse_predictor, "servingruntime": parse_runtime}
S3 = {"s3": {"secretKey": "k"}}
TYPE = {"modelType": {"name": "sklearn"}}
SHIPPED = [
    document
    for path in sorted((ROOT / "deploy").rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document.get("kind", "").lower() in PARSERS
]


def manifest(**spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": "x"},
        "spec": TYPE | spec,
    }


def is_parsed(kind: str, document: object) -> bool:
    try:
        PARSERS[kind](document)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("kind", MODELS)
def test_exported_schema_is_what_the_command_prints(kind):
    result = CliRunner().invoke(wml_serving, ["schema", kind])
    path = ROOT / f"docs/schemas/{kind}.json"
    assert result.exit_code == 0
    assert path.read_text() == result.stdout, f"wml-serving schema {kind} > {path}"


def test_schema_of_another_kind_is_a_usage_error():
    assert CliRunner().invoke(wml_serving, ["schema", "pod"]).exit_code == 2


@pytest.mark.parametrize("kind", MODELS)
def test_every_field_is_described_and_nothing_unknown_is_allowed(kind):
    made = schema(kind)
    assert made["$schema"] == DIALECT
    for name, model in {kind: made, **made["$defs"]}.items():
        assert model["additionalProperties"] is False, name
        for field, value in model["properties"].items():
            assert value["description"], f"{name}.{field}"
            assert field[0].islower()
            assert "_" not in field


@pytest.mark.parametrize("document", SHIPPED, ids=lambda document: document["metadata"]["name"])
def test_shipped_files_are_valid(document):
    kind = document["kind"].lower()
    assert problems(schema(kind), document) == []
    assert is_parsed(kind, document)


GOOD_SPECS = [
    {"path": "a", "storage": S3},
    {"path": "a", "storage": {"s3": {"secretKey": "k", "bucket": "b"}}, "schemaPath": "s"},
    {"storage": {"key": "k", "path": "a", "schemaPath": "s", "parameters": {"type": "s3"}}},
    {"storage": {"path": "a"}},
    {"path": "a", "storage": {"key": "k"}},
    {"storageUri": "s3://b/a/c"},
    {"storageUri": "s3://b/a", "storage": {"key": "k"}},
    {"storageUri": "s3://b/a", "minCopies": 0, "maxCopies": 2, "runtime": {"name": "r"}},
]
BAD_SPECS = [
    {},
    {"path": "a"},
    {"storage": S3},
    {"storage": {}, "path": "a"},
    {"storage": {"key": "k"}},
    {"path": "", "storage": S3},
    {"path": "a", "storage": {"path": "a"}},
    {"path": "a", "storageUri": "s3://b/a"},
    {"storage": {"path": "a"}, "storageUri": "s3://b/a"},
    {"storage": {"s3": {"secretKey": "k", "bucket": "b"}}, "storageUri": "s3://b/a"},
    {"path": "a", "storage": S3 | {"key": "k"}},
    {"storage": S3 | {"path": "a"}},
    {"path": "a", "storage": S3 | {"schemaPath": "s"}},
    {"path": "a", "storage": S3 | {"parameters": {}}},
    {"path": "a", "schemaPath": "s", "storage": {"key": "k", "schemaPath": "s"}},
    {"path": "a", "storage": {"s3": {}}},
    {"path": "a", "storage": {"s3": {"secretKey": ".."}}},
    {"path": "a", "storage": {"s3": {"secretKey": "a/b"}}},
    {"path": "a", "storage": S3, "pth": "b"},
    {"path": "a", "storage": {"persistentVolumeClaim": {}}},
    {"storage": {"path": "a", "parameters": {"type": "a b"}}},
    {"storage": {"path": "a", "parameters": {"type": 1}}},
    {"storageUri": "http://b/a"},
    {"storageUri": "s3://b/"},
    {"storageUri": "s3://b/a", "runtime": {}},
    {"storageUri": "s3://b/a", "modelType": {"name": ""}},
    {"storageUri": "s3://b/a", "modelType": {"name": "x", "version": 1}},
    {"storageUri": "s3://b/a", "minCopies": -1},
    {"storageUri": "s3://b/a", "minCopies": True},
    {"storageUri": "s3://b/a", "maxCopies": 2**31},
]


@pytest.mark.parametrize(
    ("spec", "is_valid"),
    [(spec, True) for spec in GOOD_SPECS] + [(spec, False) for spec in BAD_SPECS],
)
def test_schema_and_model_say_the_same_of_a_predictor(spec, is_valid):
    document = manifest(**spec)
    assert (not problems(schema("predictor"), document)) is is_valid
    assert is_parsed("predictor", document) is is_valid


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Predictors"},
        {"apiVersion": "v1"},
        {"metadata": {}},
        {"metadata": {"name": "X"}},
        {"metadata": {"name": "a" * 201}},
        {"metadata": {"name": "x", "nme": "y"}},
        {"extra": 1},
        {"spec": []},
    ],
)
def test_schema_and_model_refuse_what_is_wrong_around_the_spec(change):
    document = manifest(path="a", storage=S3)
    assert not problems(schema("predictor"), document)
    document |= change
    assert problems(schema("predictor"), document)
    assert not is_parsed("predictor", document)


@pytest.mark.parametrize(
    ("change", "is_valid"),
    [
        ({}, True),
        ({"supportedModelTypes": [], "supportedModelFormats": [{"name": "a"}]}, False),
        ({"supportedModelTypes": []}, False),
        ({"multiModel": False}, False),
        ({"containers": []}, False),
        ({"containers": [mlserver_container(nme="x")]}, False),
        ({"containers": [mlserver_container(resources={"limits": {"cpu": 5}})]}, True),
        ({"containers": [mlserver_container(resources={"limits": {"cpu": True}})]}, False),
        ({"containers": [mlserver_container(image="")]}, False),
        ({"containers": [mlserver_container(ports=[{"containerPort": 0}])]}, False),
        ({"containers": [mlserver_container(env=[{"name": "a", "value": 1}])]}, False),
        ({"grpcEndpoint": "unix:/a"}, True),
        ({"grpcEndpoint": "tcp:1"}, False),
        ({"grpcDataEndpoint": "port:0"}, False),
        ({"replicas": -1}, False),
        ({"storageHelper": {"disabled": "no"}}, False),
        ({"volumes": [{"name": "a"}], "nodeSelector": {"a": "b"}}, True),
    ],
)
def test_schema_and_model_say_the_same_of_a_runtime(change, is_valid):
    document = mlserver_runtime(**change)
    assert (not problems(schema("servingruntime"), document)) is is_valid
    assert is_parsed("servingruntime", document) is is_valid
