"""The manifests in deploy/, as kubectl renders them: names, ports, rights, the strict level."""

import base64
import json
import re
import shlex
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.controller import names
from mesh.controller.config import DEFAULTS, read_config
from mesh.controller.pods import grace_period_s
from mesh.controller.workloads import workloads
from mesh.registry.etcd_settings import EtcdSettings
from mesh.storage.keys import StorageKeys
from mesh.wire.dataplane import parse_dataplane
from mesh.wire.policy import parse_policy
from mesh.wire.runtime_manifest import parse_runtime
from router.stores import PeerMemory, store_settings
from tests.controller.restricted import offences
from tests.controller.runtimes import DEPLOY, PLACE, custom, runtime, shipped

KUBECTL = shutil.which("kubectl")
OVERLAYS = ("default", "quickstart", "without-etcd", "all-namespaces")
pytestmark = [
    pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl"),
    pytest.mark.timeout(20),
]


@cache
def rendered(folder: Path) -> tuple[dict[str, Any], ...]:
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], check=True, capture_output=True, text=True
    )
    return tuple(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    objects = rendered(DEPLOY / "overlays" / name)
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: item["spec"]["template"]["spec"]
        for (kind, name), item in objects.items()
        if kind in ("Deployment", "StatefulSet")
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_in_the_namespace_that_enforces_the_strict_level(name: str):
    objects = overlay(name)
    level = objects["Namespace", "wml-serving"]["metadata"]["labels"]
    assert level["pod-security.kubernetes.io/enforce"] == "restricted"
    assert level["wmlserving-enabled"] == "true"
    cluster = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    for (kind, _), item in objects.items():
        assert (item["metadata"].get("namespace") == "wml-serving") == (kind not in cluster)


@pytest.mark.parametrize("name", OVERLAYS)
def test_definitions_which_all_installations_share_are_in_no_overlay(name: str):
    assert not [name for kind, name in overlay(name) if kind == "CustomResourceDefinition"]


def test_quickstart_is_default_and_its_servers():
    more = set(overlay("quickstart")) - set(overlay("default"))
    assert set(overlay("default")) <= set(overlay("quickstart"))
    assert ("StatefulSet", "wml-serving-etcd") in more
    assert ("Deployment", "wml-serving-s3") in more
    assert ("Secret", "storage-config") in more
    assert ("Secret", "model-serving-etcd") in more


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_pass_the_restricted_level(name: str):
    for pod_name, pod in pods(overlay(name)).items():
        assert list(offences(pod)) == [], pod_name


@pytest.mark.parametrize("document", [shipped(), custom(), custom(grpcEndpoint="unix:/a/b")])
def test_runtime_pods_pass_the_restricted_level(document: dict[str, Any]):
    made = workloads(runtime(document), DEFAULTS, PLACE, is_up=True)
    assert list(offences(made[1]["spec"]["template"]["spec"])) == []


def test_offence_is_seen():
    pod = {"containers": [{"name": "x"}], "volumes": [{"name": "h", "hostPath": {}}]}
    assert set(offences(pod)) >= {"volume h", "x: capabilities", "runAsNonRoot"}


def test_mesh_without_etcd_has_one_node_with_the_store_and_the_others_know_where():
    objects = overlay("without-etcd")
    # Of a Deployment there may be two pods for a while, the old one that ends and the new one.
    assert ("Deployment", names.ROUTER) not in objects
    router = objects["StatefulSet", names.ROUTER]["spec"]
    assert (router["replicas"], router["serviceName"]) == (1, "wml-serving-store")
    pod = router["template"]["spec"]
    assert pod["containers"][0]["args"][:2] == ["node", "--store=memory"]
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert "etcd-config" not in mounted
    controller = objects["Deployment", names.CONTROLLER]["spec"]["template"]["spec"]
    said = {item["name"]: item.get("value") for item in controller["containers"][0]["env"]}
    assert store_settings(str(said["WML_STORE"])) == PeerMemory("wml-serving-store:8034")
    service = objects["Service", "wml-serving-store"]["spec"]
    assert service["selector"].items() <= router["template"]["metadata"]["labels"].items()
    runtime_labels = workloads(runtime(shipped()), DEFAULTS, PLACE, is_up=True)[1]["spec"]
    labels = runtime_labels["template"]["metadata"]["labels"]
    assert not service["selector"].items() <= labels.items()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_mount_has_its_volume(name: str):
    for pod in pods(overlay(name)).values():
        claimed = {"data"}
        there = claimed | {volume["name"] for volume in pod.get("volumes", ())}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= there


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_container_says_what_it_needs(name: str):
    for pod in pods(overlay(name)).values():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_services_have_the_documented_names_and_ports():
    objects = overlay("default")
    public, internal = (
        objects["Service", name] for name in ("wml-serving", names.INTERNAL_SERVICE)
    )
    assert [(p["name"], p["port"]) for p in public["spec"]["ports"]] == [
        ("grpc", 8033),
        ("http", 8008),
    ]
    made = workloads(runtime(shipped()), DEFAULTS, PLACE, is_up=True)[1]
    for deployment in (objects["Deployment", names.ROUTER], made):
        mesh = next(
            c
            for c in deployment["spec"]["template"]["spec"]["containers"]
            if c["name"] == names.MESH
        )
        assert {port["targetPort"] for port in public["spec"]["ports"]} <= {
            port["name"] for port in mesh["ports"]
        }
        assert {"--listen=0.0.0.0:8033", "--rest-listen=0.0.0.0:8008"} <= set(mesh["args"])
    assert [(p["name"], p["port"]) for p in internal["spec"]["ports"]] == [("internal", 8034)]
    assert internal["spec"]["clusterIP"] == "None"


def test_services_select_routers_and_runtimes_and_nothing_else():
    objects = overlay("quickstart")
    chosen = objects["Service", "wml-serving"]["spec"]["selector"].items()
    made = workloads(runtime(shipped()), DEFAULTS, PLACE, is_up=True)[1]
    assert made["spec"]["template"]["metadata"]["labels"].items() >= chosen
    found = {
        name
        for (kind, name), item in objects.items()
        if kind in ("Deployment", "StatefulSet")
        and item["spec"]["template"]["metadata"]["labels"].items() >= chosen
    }
    assert found == {names.ROUTER}


def test_router_is_a_node_as_the_controller_makes_them():
    pod = pods(overlay("default"))[names.ROUTER]
    made = workloads(runtime(shipped()), DEFAULTS, PLACE, is_up=True)[1]
    node = made["spec"]["template"]["spec"]["containers"][0]
    router = pod["containers"][0]
    assert set(router["args"]) < set(node["args"])
    for same in ("image", "livenessProbe", "readinessProbe", "startupProbe", "resources"):
        assert _plain(router[same]) == _plain(node[same])
    # It has nothing to hand over, and waits for its clients as they do.
    least = grace_period_s(DEFAULTS) - DEFAULTS.hand_over_seconds
    assert pod["terminationGracePeriodSeconds"] >= least


def _plain(value: Any) -> Any:
    """Without what the API server takes for granted."""
    if isinstance(value, dict):
        return {
            key: _plain(item)
            for key, item in value.items()
            if (key, item) not in (("scheme", "HTTP"), ("timeoutSeconds", 1))
        }
    return value


def test_image_of_the_installation_reaches_what_the_controller_starts():
    found = overlay("default")["Deployment", names.CONTROLLER]
    container = found["spec"]["template"]["spec"]["containers"][0]
    said = {item["name"]: item.get("value") for item in container["env"]}
    assert said["WML_IMAGE"] == container["image"]


def beside(tmp_path: Path, shown: dict[str, Any], base: str) -> tuple[dict[str, Any], ...]:
    """A kustomization of the documentation, made in a folder beside our overlays."""
    up = Path(*[".."] * (len(tmp_path.parts) - 1))
    folder = (DEPLOY / "overlays" / base).absolute()
    assert shown["resources"] == [f"../{base}"]
    written = {**shown, "resources": [str(up / folder.relative_to("/"))]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(written))
    return rendered(tmp_path)


def test_overlay_of_ones_own_can_change_images_and_namespace(tmp_path: Path):
    """The one that docs/install.md shows."""
    (tmp_path / "images.yaml").write_text((DEPLOY / "overlays/default/images.yaml").read_text())
    objects = beside(tmp_path, _yml("install.md")[0], "default")
    (binding,) = [item for item in objects if item["kind"] == "ClusterRoleBinding"]
    assert binding["metadata"]["name"] == "wmlserving-controller-models"
    assert binding["roleRef"]["name"] == "wmlserving-controller-models"
    of_the_cluster = [it for it in objects if "namespace" not in it["metadata"]]
    for item in of_the_cluster:  # or the one that is uninstalled takes it from the other
        assert (item["kind"], item["metadata"]["name"]) not in overlay("default")
    assert [subject["namespace"] for subject in binding["subjects"]] == ["models"]
    text = json.dumps(objects)
    assert "registry.example.com/wml-serving:0.1.0" in text
    assert "registry.example.com/mlserver:1.7.1" in text
    assert '"wml-serving/wml-serving' not in text
    assert '"namespace": "wml-serving"' not in text


def test_further_namespace_has_all_of_default_but_the_controller(tmp_path: Path):
    """By the overlay that docs/install.md shows."""
    found = {
        (item["kind"], item["metadata"]["name"]): item
        for item in beside(tmp_path, _yml("install.md")[1], "namespace")
    }
    assert {item["metadata"]["namespace"] for item in found.values()} == {"team-a"}
    once = set(overlay("default")) - set(found)
    assert {kind for kind, _ in once} == {
        *("Namespace", "ClusterRole", "ClusterRoleBinding"),
        *("ServiceAccount", "Deployment", "NetworkPolicy"),
    }
    assert {name for _, name in once} == {"wml-serving", names.CONTROLLER}
    for key in set(found) - {
        ("Role", names.CONTROLLER),
        ("NetworkPolicy", "wml-serving-nodes"),
        ("RoleBinding", names.CONTROLLER),
        ("RoleBinding", names.RUNTIME_ACCOUNT),
    }:
        ours = {**overlay("default")[key], "metadata": {}}
        assert {**found[key], "metadata": {}} == ours


def test_further_namespace_is_labelled_as_the_first_one_is():
    (command,) = re.findall(
        r"^kubectl create namespace (.*)$", Path("docs/install.md").read_text(), re.M
    )
    labelled = shlex.split(command.split(" && ")[1])
    assert labelled[:4] == ["kubectl", "label", "namespace", "team-a"]
    first = overlay("default")["Namespace", "wml-serving"]["metadata"]["labels"]
    assert dict(label.split("=") for label in labelled[4:]) == first


def test_controller_has_its_rights_in_a_further_namespace_and_elects_at_home(tmp_path: Path):
    objects = beside(tmp_path, _yml("install.md")[1], "namespace")
    found = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    (subject,) = found["RoleBinding", names.CONTROLLER]["subjects"]
    assert (subject["name"], subject["namespace"]) == (names.CONTROLLER, "wml-serving")
    (runtime_subject,) = found["RoleBinding", names.RUNTIME_ACCOUNT]["subjects"]
    assert runtime_subject["namespace"] == "team-a"
    at_home = overlay("default")["Role", names.CONTROLLER]["rules"]
    rules = [rule for rule in at_home if rule["apiGroups"] != ["coordination.k8s.io"]]
    assert found["Role", names.CONTROLLER]["rules"] == rules
    policy = found["NetworkPolicy", "wml-serving-nodes"]["spec"]["ingress"]
    (internal,) = [rule for rule in policy if rule["ports"] == [{"port": 8034}]]
    nodes, controller = internal["from"]
    assert "namespaceSelector" not in nodes
    assert controller["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "wml-serving"
    }


def test_controller_of_all_namespaces_differs_from_default_in_two_things():
    default, every = overlay("default"), overlay("all-namespaces")
    differing = {key for key in default.keys() | every.keys() if default.get(key) != every.get(key)}
    assert differing == {("Deployment", names.CONTROLLER), ("ClusterRole", names.CONTROLLER)}
    container = pods(every)[names.CONTROLLER]["containers"][0]
    assert container["args"][-1] == "--all-namespaces"
    rule = every["ClusterRole", names.CONTROLLER]["rules"][-1]
    assert (rule["resources"], rule["verbs"]) == (["namespaces"], ["list", "watch"])


def _yml(page: str) -> list[Any]:
    """The files for Kubernetes' tools that a page of the documentation shows."""
    blocks = re.findall(r"^```yml\n(.*?)^```$", Path("docs", page).read_text(), re.M | re.S)
    return [yaml.safe_load(text) for text in blocks]


def test_config_of_the_documentation_is_valid():
    (shown,) = _yml("kubernetes.md")
    assert read_config(json.dumps(shown)).pods_per_runtime == 3


def test_both_overlays_pass_images_on_alike():
    with_images = ("default", "quickstart")
    texts = {(DEPLOY / "overlays" / name / "images.yaml").read_text() for name in with_images}
    assert len(texts) == 1


@pytest.mark.parametrize("name", OVERLAYS)
def test_config_is_valid(name: str):
    config = overlay(name)["ConfigMap", names.CONFIG_MAP]["data"]["config.yaml"]
    assert read_config(config).pods_per_runtime == (1 if name == "quickstart" else 2)


def test_files_for_all_nodes_are_valid_and_change_nothing():
    data = overlay("default")["ConfigMap", names.MESH_CONFIG_MAP]["data"]
    assert parse_policy(yaml.safe_load(data["policy.yaml"])) == parse_policy(None)
    assert parse_dataplane(yaml.safe_load(data["dataplane.yaml"])) == parse_dataplane(None)


def test_runtimes_that_come_with_it_are_valid():
    found = [item for (kind, _), item in overlay("default").items() if kind == "ServingRuntime"]
    assert [parse_runtime(item).metadata.name for item in found] == ["mlserver-1.x"]


def test_quickstart_secrets_are_what_our_programs_read(tmp_path: Path):
    objects = overlay("quickstart")
    etcd = objects["Secret", names.ETCD_SECRET]["data"]["etcd_connection"]
    settings = EtcdSettings.read(_decoded(etcd))
    assert settings.endpoints == "http://wml-serving-etcd:2379"
    assert settings.userid
    assert settings.password
    key = "wml-serving-example-models"
    entry = json.loads(_decoded(objects["Secret", "storage-config"]["data"][key]))
    (tmp_path / key).write_text(json.dumps(entry))
    assert StorageKeys(tmp_path) is not None
    s3 = pods(objects)["wml-serving-s3"]["containers"][0]
    said = {item["name"]: item["value"] for item in s3["env"]}
    assert said["AWS_ACCESS_KEY_ID"] == entry["access_key_id"]
    assert said["AWS_SECRET_ACCESS_KEY"] == entry["secret_access_key"]


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def test_rights_have_no_wildcards_and_each_has_its_reason():
    for item in overlay("quickstart").values():
        for rule in item.get("rules", ()):
            assert "*" not in json.dumps(rule)
    for path in (DEPLOY / "rbac").glob("*.yaml"):
        lines = path.read_text().splitlines()
        for before, line in pairwise(lines):
            if line.startswith("  - apiGroups:"):
                assert before.startswith(("  # ", "    verbs:")), f"{path}: {line}"


def test_runtimes_read_one_secret_and_routers_nothing():
    objects = overlay("default")
    assert objects["Role", names.RUNTIME_ACCOUNT]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["storage-config"],
            "verbs": ["list", "watch"],
        }
    ]
    bound = [
        subject["name"]
        for (kind, _), item in objects.items()
        if kind.endswith("RoleBinding")
        for subject in item["subjects"]
    ]
    assert names.ROUTER not in bound


def test_only_nodes_and_the_controller_reach_the_internal_port():
    policy = overlay("default")["NetworkPolicy", "wml-serving-nodes"]["spec"]
    rule = next(r for r in policy["ingress"] if {"port": 8034} in r["ports"])
    assert len(rule["ports"]) == 1
    labels = [source["podSelector"]["matchLabels"] for source in rule["from"]]
    assert {"wmlserving.ai.ibm.com/service": "wml-serving"} in labels
    open_to_all = [r["ports"] for r in policy["ingress"] if "from" not in r]
    assert sorted(p["port"] for ports in open_to_all for p in ports) == [2112, 8008, 8033]
