"""ServingRuntime files and the quantities in them."""

from typing import Any

import pytest

from mesh.core.ids import RuntimeName
from mesh.core.spec import ModelType, RuntimeSpec
from mesh.wire.documents import InvalidManifest
from mesh.wire.quantities import parse_quantity, whole_bytes
from mesh.wire.runtime_manifest import endpoint_port, parse_runtime
from tests.support.runtimes import mlserver_runtime


def problems(document: object) -> set[str]:
    with pytest.raises(InvalidManifest) as caught:
        parse_runtime(document)
    return set(caught.value.problems)


def container(**fields: object) -> dict[str, Any]:
    return {"name": "mlserver", "image": "mlserver:1", **fields}


def test_runtime_offers_the_types_that_are_selected_on_their_own():
    document = mlserver_runtime(
        supportedModelTypes=[
            {"name": "sklearn", "version": "0"},
            {"name": "xgboost", "autoSelect": True, "priority": 1},
            {"name": "lightgbm", "autoSelect": False},
        ]
    )
    assert parse_runtime(document).to_spec() == RuntimeSpec(
        RuntimeName("mlserver-1.x"), frozenset({ModelType("sklearn", "0"), ModelType("xgboost")})
    )


def test_runtime_takes_the_newer_name_of_its_types():
    document = mlserver_runtime(
        supportedModelTypes=None, supportedModelFormats=[{"name": "sklearn"}]
    )
    assert parse_runtime(document).to_spec().model_types == {ModelType("sklearn")}


def test_runtime_with_everything_that_is_known():
    manifest = parse_runtime(
        mlserver_runtime(
            disabled=True,
            replicas=2,
            grpcEndpoint="unix:/tmp/mm.sock",
            storageHelper={"disabled": True},
            nodeSelector={"a": "b"},
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    assert manifest.spec.disabled
    assert manifest.spec.replicas == 2
    assert manifest.server_container().command == ("mlserver", "start")


def test_server_container_is_the_one_of_the_adapters_type():
    containers = [container(name="sidecar"), container()]
    assert parse_runtime(mlserver_runtime(containers=containers)).server_container().name == (
        "mlserver"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"multiModel": False}, {"spec.multiModel: must be true"}),
        ({"multiModel": None}, {"spec.multiModel: required"}),
        ({"supportedModelTypes": None}, {"spec.supportedModelTypes: required"}),
        (
            {"supportedModelFormats": [{"name": "a"}]},
            {
                "Only one of spec.supportedModelTypes and spec.supportedModelFormats"
                " can be specified"
            },
        ),
        (
            {"supportedModelTypes": [{"name": "a", "autoselect": True}]},
            {"spec.supportedModelTypes[0].autoselect: unknown field, did you mean autoSelect?"},
        ),
        ({"supportedModelTypes": {}}, {"spec.supportedModelTypes: must be a list, not a mapping"}),
        ({"containers": []}, {"spec.containers: required"}),
        (
            {"containers": [container(), container(name="a"), container(name="a")]},
            {"spec.containers[2].name: given twice"},
        ),
        (
            {"containers": [container(name="other")]},
            {"spec.containers: none is named as spec.builtInAdapter.serverType"},
        ),
        (
            {"containers": [container(comand=["a"], env=[{"name": "A", "value": 1}])]},
            {
                "spec.containers[0].comand: unknown field, did you mean command?",
                "spec.containers[0].env[0].value: must be a string, not a number (quote it)",
            },
        ),
        (
            {"containers": [container(ports=[{"containerPort": 70000}])]},
            {"spec.containers[0].ports[0].containerPort: must be less than or equal to 65535"},
        ),
        (
            {"containers": [container(resources={"requests": {"memory": "1GB"}})]},
            {
                "spec.containers[0].resources.requests.memory:"
                " '1GB' is no quantity such as 500m, 2 or 1Gi"
            },
        ),
        (
            {"containers": [container(resources={"limits": {"cpu": True, "memory": "-1"}})]},
            {
                "spec.containers[0].resources.limits.cpu:"
                " must be a quantity such as 500m, 2 or 1Gi",
                "spec.containers[0].resources.limits.memory: must not be negative",
            },
        ),
        (
            {"builtInAdapter": {"serverType": "mlserver"}},
            {"spec.builtInAdapter.runtimeManagementPort: required"},
        ),
        (
            {"grpcDataEndpoint": "8001"},
            {"spec.grpcDataEndpoint: must be port:<number> or unix:/<path>"},
        ),
        (
            {"grpcEndpoint": "port:65536"},
            {"spec.grpcEndpoint: must be port:<number> or unix:/<path>"},
        ),
        (
            {"grpcdataendpoint": ""},
            {"spec.grpcdataendpoint: unknown field, did you mean grpcDataEndpoint?"},
        ),
    ],
)
def test_bad_runtimes_are_named_with_their_path(fields, expected):
    assert problems(mlserver_runtime(**fields)) == expected


@pytest.mark.parametrize("document", [None, "x", {}, {"spec": 3}, {"spec": {"containers": 3}}])
def test_document_of_another_shape_is_refused(document):
    assert problems(document)


def test_endpoint_port():
    assert endpoint_port("port:8001") == 8001
    assert endpoint_port("unix:/x") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("5", 5),
        ("1Gi", 2**30),
        ("1.5Gi", 3 * 2**29),
        ("448Mi", 448 * 2**20),
        ("1Ki", 1024),
        ("2k", 2000),
        ("1M", 10**6),
        ("1G", 10**9),
        ("7E", 7 * 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-1", 1),
        ("12e+2", 1200),
        ("500m", 1),
        ("1500m", 2),
        ("1n", 1),
        (".5Ki", 512),
        ("5.", 5),
        ("+1", 1),
    ],
)
def test_quantity_in_whole_bytes(text, expected):
    assert whole_bytes(text) == expected


def test_quantity_of_cpu_is_exact():
    assert str(parse_quantity("500m")) == "0.500"
    assert parse_quantity("-1") == -1


@pytest.mark.parametrize(
    "text",
    ["", "Gi", "1GiB", "1gi", "1 Gi", "1K", "1e", "1ee", "1mi", "0x1", "1_0", "٣", "1e99", "8Ei",
     "9" * 31, "nan", "1\n", "1.2.3", "1x3"],
)  # fmt: skip
def test_other_text_is_no_quantity(text):
    with pytest.raises(ValueError, match=r"quantity|too large"):
        parse_quantity(text)
