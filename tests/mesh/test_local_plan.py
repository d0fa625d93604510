"""The processes that follow from a ServingRuntime file on one machine."""

import sys
from pathlib import Path

import pytest

from mesh.local.plan import LocalRuntime, declared_ports, plan
from mesh.wire.documents import InvalidManifest
from mesh.wire.runtime_manifest import parse_runtime
from tests.support.runtimes import HTTP_PORT, RUNTIME_PORT, mlserver_container, mlserver_runtime

MODELS = Path("/state/models")
LOCAL = {RUNTIME_PORT: 41001, HTTP_PORT: 41002}


def planned(document: object, ports: dict[int, int] = LOCAL) -> LocalRuntime:
    return plan(
        parse_runtime(document),
        models_dir=MODELS,
        socket=Path("/run/adapter.sock"),
        storage_config_dir=Path("/state/storage-config"),
        ports=ports,
        runtime_bin=Path("/venv/bin"),
    )


def with_env(**env: str) -> dict[str, object]:
    container = mlserver_container(
        env=[{"name": name, "value": value} for name, value in env.items()],
        ports=[{"containerPort": RUNTIME_PORT}, {"containerPort": HTTP_PORT}],
    )
    return mlserver_runtime(containers=[container])


def test_server_is_the_containers_command_where_the_runtime_is_installed():
    server = planned(mlserver_runtime()).server
    assert server.name == "mlserver"
    assert server.argv == ("/venv/bin/mlserver", "start", "/state/models/_mlserver_models")
    assert server.cwd == MODELS


def test_absolute_program_of_an_image_is_looked_up_by_its_name():
    container = mlserver_container(command=["/opt/bin/mlserver"], args=[])
    assert planned(mlserver_runtime(containers=[container])).server.argv == ("/venv/bin/mlserver",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/models", "/state/models"),
        ("/models/a", "/state/models/a"),
        ("/modelsx", "/modelsx"),
        ("--store=/models/a", "--store=/state/models/a"),
        ("/other/models", "/other/models"),
        ("", ""),
    ],
)
def test_models_folder_is_rewritten_in_arguments_and_env(text, expected):
    container = mlserver_container(args=[text], env=[{"name": "A", "value": text}])
    server = planned(mlserver_runtime(containers=[container])).server
    assert server.argv[-1] == expected
    assert server.env == {"A": expected}


def test_models_folder_with_odd_characters_is_taken_as_it_is():
    runtime = parse_runtime(mlserver_runtime())
    odd = Path(r"/a\1 b")
    local = plan(
        runtime, models_dir=odd, socket=Path("/s"), storage_config_dir=Path("/c"), ports=LOCAL,
        runtime_bin=Path("/b"),
    )  # fmt: skip
    assert local.server.argv[-1] == r"/a\1 b/_mlserver_models"


def test_env_that_is_a_declared_port_becomes_the_local_one():
    server = planned(with_env(GRPC="8001", HTTP="8080", OTHER="8002", TEXT="x8001", FALSE="0"))
    assert server.server.env == {
        "GRPC": "41001", "HTTP": "41002", "OTHER": "8002", "TEXT": "x8001", "FALSE": "0"
    }  # fmt: skip


def test_env_without_a_value_is_empty():
    container = mlserver_container(env=[{"name": "A"}])
    assert planned(mlserver_runtime(containers=[container])).server.env == {"A": ""}


def test_working_dir_is_rewritten():
    container = mlserver_container(workingDir="/models/_w")
    server = planned(mlserver_runtime(containers=[container])).server
    assert server.cwd == Path("/state/models/_w")


def test_adapter_gets_what_it_must_know():
    document = mlserver_runtime(
        builtInAdapter={
            "serverType": "mlserver",
            "runtimeManagementPort": RUNTIME_PORT,
            "memBufferBytes": 134217728,
            "modelLoadingTimeoutMillis": 90000,
        }
    )
    adapter = planned(document).adapter
    assert adapter.name == "mlserver-adapter"
    assert adapter.argv == (sys.executable, "-m", "router", "adapter", "mlserver")
    assert adapter.env == {
        "ADAPTER_SOCKET": "/run/adapter.sock",
        "RUNTIME_PORT": "41001",
        "CONTAINER_MEM_REQ_BYTES": str(2**30),
        "MEM_BUFFER_BYTES": "134217728",
        "LOADTIME_TIMEOUT": "90000",
        "ROOT_MODEL_DIR": "/state/models",
        "STORAGE_CONFIG_DIR": "/state/storage-config",
    }


def test_adapters_own_env_wins_and_what_it_has_defaults_for_is_left_to_it():
    adapter = {
        "serverType": "mlserver",
        "runtimeManagementPort": RUNTIME_PORT,
        "env": [{"name": "LOADTIME_TIMEOUT", "value": "1"}, {"name": "X", "value": "/models/x"}],
    }
    env = planned(mlserver_runtime(builtInAdapter=adapter)).adapter.env
    assert env["LOADTIME_TIMEOUT"] == "1"
    assert env["X"] == "/state/models/x"
    assert "MEM_BUFFER_BYTES" not in env


def test_memory_limit_stands_in_for_a_request():
    container = mlserver_container(resources={"limits": {"memory": "2Gi"}})
    env = planned(mlserver_runtime(containers=[container])).adapter.env
    assert env["CONTAINER_MEM_REQ_BYTES"] == str(2 * 2**30)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("port:8001", "127.0.0.1:41001"),
        ("unix:/tmp/x.sock", "unix:/tmp/x.sock"),
        ("unix:/models/x.sock", "unix:/state/models/x.sock"),
    ],
)
def test_data_address(endpoint, expected):
    assert planned(mlserver_runtime(grpcDataEndpoint=endpoint)).data_address == expected


def test_declared_ports_are_those_of_container_adapter_and_data():
    container = mlserver_container(ports=[{"containerPort": HTTP_PORT}])
    document = mlserver_runtime(containers=[container], grpcDataEndpoint="port:9000")
    assert declared_ports(parse_runtime(document)) == (RUNTIME_PORT, HTTP_PORT, 9000)
    assert declared_ports(parse_runtime(mlserver_runtime())) == (RUNTIME_PORT,)


def test_what_one_machine_cannot_do_is_refused_all_at_once():
    container = {
        "name": "mlserver",
        "image": "i",
        "envFrom": [],
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {}}}],
    }
    document = mlserver_runtime(builtInAdapter=None, grpcDataEndpoint=None, containers=[container])
    with pytest.raises(InvalidManifest) as caught:
        planned(document)
    assert caught.value.problems == (
        "spec.builtInAdapter: required to run on one machine",
        "spec.grpcDataEndpoint: required to run on one machine",
        "spec.containers[0].command: required to run on one machine",
        "spec.containers[0].resources.requests.memory: required to run on one machine",
        "spec.containers[0].envFrom: cannot be used on one machine",
        "spec.containers[0].env[0].valueFrom: cannot be used on one machine",
    )
