"""What a cluster refuses of a runtime, in words with a path."""

from typing import Any

import pytest
import yaml

from mesh.adapters.main import SERVERS
from mesh.controller.scale_annotations import CLASS, LEAST, METRIC, MOST, TARGET
from mesh.controller.validation import SERVER_TYPES, runtime_problems
from mesh.wire.runtime_manifest import parse_runtime
from tests.controller.runtimes import DEPLOY, custom, shipped, shipped_with
from tests.support.pages import blocks, pages

KINDS = ("ServingRuntime", "ClusterServingRuntime")


def _runtimes(text: str, place: str) -> list[Any]:
    """Those of a text of YAML, each with the place where it stands."""
    documents = [it for it in yaml.safe_load_all(text) if isinstance(it, dict)]
    return [pytest.param(it, id=place) for it in documents if it.get("kind") in KINDS]


DEPLOYED = [
    found
    for path in sorted(DEPLOY.rglob("*.yaml"))
    for found in _runtimes(path.read_text(), str(path))
]
SHOWN = [
    found
    for page in pages()
    for block in blocks(page)
    if block.language in ("yaml", "yml")
    for found in _runtimes(block.text, block.place)
]


def problems(document: dict[str, Any]) -> tuple[str, ...]:
    return runtime_problems(parse_runtime(document))


def server(**fields: Any) -> dict[str, Any]:
    return custom(containers=[{"name": "server", "image": "x", **fields}])


def test_shipped_and_custom_runtimes_are_fine():
    assert problems(shipped()) == ()
    assert problems(custom()) == ()


@pytest.mark.parametrize("document", [*DEPLOYED, *SHOWN])
def test_runtime_of_deploy_and_of_the_documentation_is_fine(document: dict[str, Any]):
    assert problems({**document, "kind": "ServingRuntime"}) == ()


def test_runtimes_of_deploy_and_of_the_documentation_are_found():
    assert {found.id for found in DEPLOYED} >= {
        str(DEPLOY / "runtimes/mlserver-1.x.yaml"),
        str(DEPLOY / "example-runtime/scale.yaml"),
    }
    assert SHOWN


def test_known_server_types_are_those_of_the_adapter():
    assert set(SERVER_TYPES) == set(SERVERS)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            server(ports=[{"containerPort": 8033}]),
            "spec.containers[0].ports[0].containerPort: 8033 is reserved for inference",
        ),
        (
            server(ports=[{"containerPort": 9, "name": "grpc"}]),
            "spec.containers[0].ports[0].name: grpc is reserved for a port of the mesh",
        ),
        (
            server(volumeMounts=[{"name": "x", "mountPath": "/models/"}]),
            "spec.containers[0].volumeMounts[0].mountPath: /models is reserved for the mesh",
        ),
        (
            server(lifecycle={"preStop": {}}),
            "spec.containers[0].lifecycle: cannot be set, the mesh ends containers in its own"
            " order",
        ),
        (
            custom(containers=[{"name": "mesh", "image": "x"}]),
            "spec.containers[0].name: mesh is reserved for a container of the mesh",
        ),
        (
            custom(containers=[{"name": "mesh-x", "image": "x"}]),
            "spec.containers[0].name: mesh-x is reserved for a container of the mesh",
        ),
        (
            custom(volumes=[{"name": "models-dir", "emptyDir": {}}]),
            "spec.volumes[0].name: models-dir is reserved for a volume of the mesh",
        ),
        (
            custom(grpcEndpoint="port:2112"),
            "spec.grpcEndpoint: port 2112 is reserved for probes and metrics",
        ),
        (
            custom(grpcEndpoint="unix:/run/wml-serving/x.sock"),
            "spec.grpcEndpoint: /run/wml-serving is reserved for the mesh",
        ),
        (
            custom(grpcDataEndpoint="port:8008"),
            "spec.grpcDataEndpoint: port 8008 is reserved for inference over HTTP",
        ),
        (
            shipped_with(grpcDataEndpoint="port:8033"),
            "spec.grpcDataEndpoint: port 8033 is reserved for inference",
        ),
        (
            shipped_with(grpcEndpoint="port:8034"),
            "spec.grpcEndpoint: port 8034 is reserved for other nodes",
        ),
        (
            shipped_with(grpcDataEndpoint="unix:/run/wml-serving/x.sock"),
            "spec.grpcDataEndpoint: /run/wml-serving is reserved for the mesh",
        ),
        (
            shipped_with({"runtimeManagementPort": 8034}),
            "spec.builtInAdapter.runtimeManagementPort: 8034 is reserved for other nodes",
        ),
        (custom(grpcEndpoint=None), "spec.grpcEndpoint: required without spec.builtInAdapter"),
        (
            custom(storageHelper=None),
            "spec.storageHelper.disabled: must be true without spec.builtInAdapter, as nothing but"
            " the runtime itself pulls its models",
        ),
        (
            {**custom(), "metadata": {"name": "a" * 60}},
            "metadata.name: must have at most 34 characters, since its pods' names have more",
        ),
    ],
)
def test_runtime_that_takes_what_is_reserved_is_refused(document: dict[str, Any], problem: str):
    assert problems(document) == (problem,)


def test_adapter_needs_a_data_endpoint_memory_and_a_known_server():
    document = shipped()
    del document["spec"]["grpcDataEndpoint"], document["spec"]["containers"][0]["resources"]
    document["spec"]["containers"][0]["name"] = "triton"
    document["spec"]["builtInAdapter"]["serverType"] = "triton"
    assert problems(document) == (
        "spec.builtInAdapter.serverType: not known; there is mlserver",
        "spec.grpcDataEndpoint: required with spec.builtInAdapter",
        "spec.containers[0].resources.requests.memory: required, models are loaded up to it",
    )


def test_memory_within_the_buffer_is_refused():
    document = shipped()
    document["spec"]["containers"][0]["resources"]["requests"]["memory"] = "64Mi"
    assert problems(document) == (
        "spec.containers[0].resources.requests.memory: must be more than"
        " builtInAdapter.memBufferBytes",
    )


def test_adapter_container_name_is_reserved():
    document = shipped()
    document["spec"]["containers"].append({"name": "mlserver-adapter", "image": "x"})
    assert problems(document) == (
        "spec.containers[1].name: mlserver-adapter is reserved for a container of the mesh",
    )


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ({"maxLoadingConcurrency": "0"}, "maxLoadingConcurrency must be a number from 1 to 10000"),
        (
            {"perModelConcurrencyLimit": "many"},
            "perModelConcurrencyLimit must be a number from 0 to 10000",
        ),
        ({CLASS: "kpa"}, f"{CLASS} must be hpa"),
        ({CLASS: "hpa", METRIC: "disk"}, f"{METRIC} must be cpu or memory"),
        ({CLASS: "hpa", TARGET: "-1"}, f"{TARGET} must be a number from 1 to 1000"),
        ({CLASS: "hpa", LEAST: "3"}, f"{LEAST} must not be greater than {MOST}"),
    ],
)
def test_annotation_that_means_nothing_is_refused(annotations: dict[str, str], problem: str):
    document = shipped()
    document["metadata"]["annotations"] = annotations
    assert problems(document) == (f"metadata.annotations: {problem}",)


def test_autoscaler_and_replicas_are_exclusive():
    document = shipped()
    document["metadata"]["annotations"] = {CLASS: "hpa"}
    document["spec"]["replicas"] = 2
    assert problems(document) == (f"spec.replicas: cannot be set with the annotation {CLASS}",)
