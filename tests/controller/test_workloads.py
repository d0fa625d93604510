"""Manifests of a runtime: what is in the pod, and what Kubernetes is told of it."""

import json
import re
from typing import Any

import pytest

from mesh.controller.config import DEFAULTS, Config, read_config
from mesh.controller.pods import grace_period_s
from mesh.controller.scale_annotations import CLASS, LEAST, METRIC, MOST, TARGET
from mesh.controller.workloads import PREFERRED, workloads
from mesh.ops.settings import AdapterSettings
from mesh.wire.runtime_manifest import parse_runtime
from router.cli.node import node_command
from tests.controller.runtimes import OWNER, PLACE, custom, runtime, shipped


def made(
    document: dict[str, Any], config: Config = DEFAULTS, *, is_up: bool = True
) -> dict[str, dict[str, Any]]:
    objects = workloads(runtime(document), config, PLACE, is_up=is_up)
    return {item["kind"]: item for item in objects}


def pod(document: dict[str, Any], config: Config = DEFAULTS) -> dict[str, Any]:
    found: dict[str, Any] = made(document, config)["Deployment"]["spec"]["template"]["spec"]
    return found


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in spec["containers"] if item["name"] == name)


def env(item: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in item["env"]}


def annotated(**annotations: str) -> dict[str, Any]:
    document = shipped()
    document["metadata"]["annotations"] = annotations
    return document


def test_runtime_shipped_has_the_documented_names():
    objects = made(shipped())
    assert list(objects) == ["ConfigMap", "Deployment", "PodDisruptionBudget"]
    assert {item["metadata"]["name"] for item in objects.values()} == {"wml-serving-mlserver-1.x"}
    assert {item["metadata"]["namespace"] for item in objects.values()} == {"models"}
    names = [item["name"] for item in pod(shipped())["containers"]]
    assert names == ["mesh", "mlserver-adapter", "mlserver"]
    assert all(
        item["metadata"]["ownerReferences"] == [OWNER.reference()] for item in objects.values()
    )


def test_node_is_told_where_everything_is():
    spec = pod(shipped())
    told = container(spec, "mesh")["args"]
    assert told[0] == "node"
    assert {
        "--store=/etc/wml-serving/etcd/etcd_connection",
        "--store-prefix=$(POD_NAMESPACE)",
        "--runtime=unix:/run/wml-serving/adapter.sock",
        "--data=127.0.0.1:8001",
        "--serving-runtime=/etc/wml-serving/runtime/runtime.json",
        "--tls=/etc/wml-serving/tls",
        "--address=$(POD_IP):8034",
    } <= set(told)
    fields = {it["name"] for it in container(spec, "mesh")["env"]}
    assert set(re.findall(r"\$\((\w+)\)", " ".join(told))) <= fields


def test_nodes_and_adapters_know_all_that_they_are_told():
    spec = pod(annotated(maxLoadingConcurrency="3"))
    options = {name for option in node_command.params for name in option.opts}
    told = container(spec, "mesh")["args"][1:]
    assert {argument.partition("=")[0] for argument in told} <= options
    found = env(container(spec, "mlserver-adapter"))
    assert {name.lower() for name in found} <= set(AdapterSettings.model_fields)
    settings = AdapterSettings.read({**found, "POD_NAMESPACE": "models"})
    assert settings.capacity_bytes == 2**30 - 134217728


def test_file_for_the_node_is_the_runtime_again():
    text = made(shipped())["ConfigMap"]["data"]["runtime.json"]
    assert parse_runtime(json.loads(text)).to_spec() == parse_runtime(shipped()).to_spec()


def test_adapter_has_the_settings_of_the_file():
    spec = pod(annotated(maxLoadingConcurrency="3", perModelConcurrencyLimit="8"))
    found = env(container(spec, "mlserver-adapter"))
    assert (
        found.items()
        >= {
            "ADAPTER_SOCKET": "/run/wml-serving/adapter.sock",
            "RUNTIME_PORT": "8001",
            "CONTAINER_MEM_REQ_BYTES": str(2**30),
            "MODEL_DISK_BYTES": str(3 * 2**30 * 15 // 16),  # of twice 1Gi and 1Gi
            "MEM_BUFFER_BYTES": "134217728",
            "LOADTIME_TIMEOUT": "90000",
            "STORAGE_SECRET_NAME": "storage-config",
            "LOADING_CONCURRENCY": "3",
            "LIMIT_PER_MODEL_CONCURRENCY": "8",
        }.items()
    )


def test_adapter_env_of_the_file_comes_over_ours():
    document = shipped()
    document["spec"]["builtInAdapter"]["env"] = [{"name": "LOG_LEVEL", "value": "debug"}]
    assert env(container(pod(document), "mlserver-adapter"))["LOG_LEVEL"] == "debug"


def test_every_mount_has_its_volume_and_every_volume_is_mounted():
    for document in (shipped(), custom(), custom(grpcEndpoint="unix:/run/own/x.sock")):
        spec = pod(document)
        mounts = {m["name"] for c in spec["containers"] for m in c["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]}
        for each in spec["containers"]:
            paths = [mount["mountPath"] for mount in each["volumeMounts"]]
            assert len(paths) == len(set(paths))


def test_token_is_in_the_adapter_alone():
    spec = pod(shipped())
    assert spec["automountServiceAccountToken"] is False
    with_token = [
        item["name"]
        for item in spec["containers"]
        if any(mount["name"] == "api-token" for mount in item["volumeMounts"])
    ]
    assert with_token == ["mlserver-adapter"]
    assert "api-token" not in [volume["name"] for volume in pod(custom())["volumes"]]


def test_containers_beside_the_node_end_after_it():
    spec = pod(shipped())
    assert "lifecycle" not in container(spec, "mesh")
    for name in ("mlserver-adapter", "mlserver"):
        asked = container(spec, name)["lifecycle"]["preStop"]["httpGet"]
        assert (asked["path"], asked["port"]) == ("/prestop", 2112)


def test_grace_period_has_room_for_all_that_a_leaving_node_waits_for():
    config = read_config("handOverSeconds: 100\nconnectionAgeSeconds: 50")
    spec = pod(shipped(), config)
    # Hand-over, the age of connections and a tenth, their clients, requests, those that are passed
    # on, the server's stop.
    assert spec["terminationGracePeriodSeconds"] > 100 + 55 + 10 + 30 + 10 + 30
    assert spec["terminationGracePeriodSeconds"] == grace_period_s(config)
    assert {"--hand-over=100", "--connection-age=50"} <= set(container(spec, "mesh")["args"])


def test_model_cache_has_room_and_can_be_set():
    def size(config: Config) -> str:
        volume = next(v for v in pod(shipped(), config)["volumes"] if v["name"] == "models-dir")
        return str(volume["emptyDir"]["sizeLimit"])

    assert size(DEFAULTS) == "3072Mi"
    assert size(read_config("modelCache: {sizeLimit: 20Gi}")) == "20Gi"


def test_rolling_update_loses_no_pod_and_budget_lets_one_go():
    objects = made(shipped())
    rolling = objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("told", "text", "is_up", "count"),
    [
        (None, "", True, 2),
        (None, "podsPerRuntime: 5", True, 5),
        (3, "podsPerRuntime: 5", True, 3),
        (3, "", False, 0),
    ],
)
def test_replicas(told: int | None, text: str, is_up: bool, count: int):
    document = shipped()
    if told is not None:
        document["spec"]["replicas"] = told
    assert made(document, read_config(text), is_up=is_up)["Deployment"]["spec"]["replicas"] == count


def test_autoscaler_has_the_replicas_while_up_and_goes_at_zero():
    document = annotated(**{CLASS: "hpa", LEAST: "2", MOST: "5", METRIC: "memory", TARGET: "70"})
    objects = made(document)
    assert "replicas" not in objects["Deployment"]["spec"]
    spec = objects["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)
    assert spec["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    assert spec["metrics"] == [
        {
            "type": "Resource",
            "resource": {
                "name": "memory",
                "target": {"type": "Utilization", "averageUtilization": 70},
            },
        }
    ]
    down = made(document, is_up=False)
    assert down["Deployment"]["spec"]["replicas"] == 0
    assert "HorizontalPodAutoscaler" not in down


def test_pods_are_replaced_for_what_nodes_read_and_not_for_their_number():
    def template(document: dict[str, Any]) -> Any:
        return made(document)["Deployment"]["spec"]["template"]

    more, other = shipped(), shipped()
    more["spec"]["replicas"] = 7
    other["spec"]["supportedModelTypes"].append({"name": "mllib"})
    assert template(more) == template(shipped())
    assert template(other) != template(shipped())


def test_labels_and_annotations_of_pods_never_cover_those_that_select():
    document = shipped()
    document["spec"]["labels"] = {"team": "a", "wmlserving.ai.ibm.com/runtime": "evil"}
    document["spec"]["annotations"] = {"note": "x"}
    spec = made(document, read_config("runtimePodLabels: {team: b, cost: c}"))["Deployment"]["spec"]
    meta = spec["template"]["metadata"]
    assert meta["labels"].items() >= {"team": "a", "cost": "c"}.items()
    assert meta["labels"].items() >= spec["selector"]["matchLabels"].items()
    assert meta["labels"]["wmlserving.ai.ibm.com/runtime"] == "mlserver-1.x"
    assert meta["labels"]["wmlserving.ai.ibm.com/service"] == "wml-serving"
    assert meta["annotations"]["note"] == "x"


def test_node_selection_and_pull_secrets_are_those_of_file_and_config():
    document = shipped()
    chosen = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}, "podAntiAffinity": {}},
    }
    document["spec"].update(chosen, imagePullSecrets=[{"name": "own"}])
    spec = pod(document, read_config("imagePullSecrets: [ours]"))
    assert spec.items() >= chosen.items()
    assert spec["imagePullSecrets"] == [{"name": "ours"}, {"name": "own"}]


def test_pods_are_spread_over_machines_where_there_are_no_zones():
    """A node without the label of any constraint counts in none of them: see tests/kube."""
    spec = pod(shipped())
    (over_hosts,) = spec["topologySpreadConstraints"]
    assert over_hosts["topologyKey"] == "kubernetes.io/hostname"
    labels = made(shipped())["Deployment"]["spec"]["selector"]["matchLabels"]
    assert over_hosts["labelSelector"]["matchLabels"] == labels
    (over_zones,) = spec["affinity"]["podAntiAffinity"][PREFERRED]
    assert over_zones["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert over_zones["podAffinityTerm"]["labelSelector"]["matchLabels"] == labels


def test_custom_runtime_on_a_port_is_asked_there():
    spec = pod(custom(grpcDataEndpoint="port:9000"))
    assert [item["name"] for item in spec["containers"]] == ["mesh", "server"]
    assert {"--runtime=127.0.0.1:8085", "--data=127.0.0.1:9000"} <= set(
        container(spec, "mesh")["args"]
    )


def test_custom_runtime_on_a_socket_shares_its_folder():
    spec = pod(custom(grpcEndpoint="unix:/run/own/spi.sock"))
    told = container(spec, "mesh")["args"]
    assert {"--runtime=unix:/run/own/spi.sock", "--data=unix:/run/own/spi.sock"} <= set(told)
    for name in ("mesh", "server"):
        mounts = container(spec, name)["volumeMounts"]
        assert {"name": "domain-socket", "mountPath": "/run/own"} in mounts


def test_container_keeps_what_was_written():
    document = custom(
        volumes=[{"name": "data", "emptyDir": {}}],
        containers=[
            {
                "name": "server",
                "image": "example.com/server:1",
                "imagePullPolicy": "Always",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "securityContext": {"runAsUser": 7},
                "readinessProbe": {"tcpSocket": {"port": 8085}},
            }
        ],
    )
    spec = pod(document)
    found = container(spec, "server")
    assert found["imagePullPolicy"] == "Always"
    assert found["readinessProbe"] == {"tcpSocket": {"port": 8085}}
    assert found["volumeMounts"][0] == {"name": "data", "mountPath": "/data"}
    assert found["securityContext"]["runAsUser"] == 7
    assert found["securityContext"]["allowPrivilegeEscalation"] is False
    assert {"name": "data", "emptyDir": {}} in spec["volumes"]


def test_store_of_another_node_needs_no_secret():
    place = type(PLACE)(PLACE.image, store="peer:router:8034")
    objects = workloads(runtime(shipped()), DEFAULTS, place, is_up=True)
    spec = objects[1]["spec"]["template"]["spec"]
    assert "--store=peer:router:8034" in container(spec, "mesh")["args"]
    assert "etcd-config" not in [volume["name"] for volume in spec["volumes"]]
