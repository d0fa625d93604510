"""Runtimes as a real API server and its Deployments take them, or do not: a controller beside it
with its own rights, and a mesh whose node is used.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.controller.names import CONFIG_MAP, KEPT_CONFIG_MAP, workload_name
from mesh.controller.scale_annotations import CLASS, LEAST, MOST
from tests.controller.runtimes import custom, shipped
from tests.support.kube_audit import NAMESPACE
from tests.support.kube_control_plane import ControlPlane, kubectl
from tests.support.kube_controllers import ControllerProcess
from tests.support.kube_predictors import predictor
from tests.support.kube_tools import CONTROLLERS, missing
from tests.support.mesh_stand import MeshStand, eventually, small_mesh

RESTS_S = 45.0
SHIPPED = "mlserver-1.x"
Json = dict[str, Any]


@dataclass
class Stand:
    plane: ControlPlane
    folder: Path
    mesh: MeshStand
    controller: ControllerProcess

    def again(self, name: str) -> None:
        """Another life of the controller."""
        self.controller.stop()
        self.kubectl("delete", "lease", "wmlserving-controller")
        self.controller = begun(self.plane, self.folder, self.mesh, name)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return kubectl(self.plane, f"--namespace={NAMESPACE}", *arguments, stdin=stdin)

    def apply(self, obj: Json) -> None:
        command = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        self.kubectl(*command, stdin=json.dumps(obj))

    def delete(self, *arguments: str) -> None:
        self.kubectl("delete", "--ignore-not-found", *arguments)

    def conditions(self, runtime: str) -> dict[str, Json]:
        found = json.loads(self.kubectl("get", "servingruntime", runtime, "-o=json"))
        return {it["type"]: it for it in found.get("status", {}).get("conditions", ())}

    def replicas(self, runtime: str) -> str:
        field = "-o=jsonpath={.spec.replicas}"
        return self.kubectl(
            "get", "deployment", workload_name(runtime), "--ignore-not-found", field
        )

    def events(self, reason: str) -> list[Json]:
        found = self.kubectl("get", "events", f"--field-selector=reason={reason}", "-o=json")
        items: list[Json] = json.loads(found)["items"]
        return items

    async def until(self, holds: Callable[[], bool]) -> None:
        async def held() -> bool:
            return holds()

        await eventually(held, lambda: self.controller.log()[-3000:], RESTS_S)


def begun(plane: ControlPlane, folder: Path, mesh: MeshStand, name: str) -> ControllerProcess:
    controller = ControllerProcess(plane, folder, name, mesh.nodes[0].internal)
    controller.start()
    controller.until_leading()
    return controller


@asynccontextmanager
async def stand(plane: ControlPlane, folder: Path) -> AsyncIterator[Stand]:
    async with small_mesh(folder / "mesh", nodes=1) as mesh:
        it = Stand(plane, folder, mesh, begun(plane, folder, mesh, "one"))
        try:
            yield it
        finally:
            it.controller.stop()
            it.delete("predictors", "--all")
            it.delete("servingruntime", "own")
            it.delete("clusterservingruntime", "own")
            it.delete("lease", "wmlserving-controller")


async def test_runtime_whose_pods_kubernetes_refuses_says_so_and_holds_up_no_other(
    plane: ControlPlane, tmp_path: Path
):
    async with stand(plane, tmp_path) as it:
        bad = custom(tolerations=[{"key": "a", "operator": "Sometimes"}])
        it.apply(bad)
        await it.until(lambda: it.conditions("own").get("Valid", {}).get("status") == "False")
        found = it.conditions("own")["Valid"]
        assert found["reason"] == "Refused"
        assert "spec.template.spec.tolerations[0].operator" in found["message"]
        assert "Sometimes" in found["message"]
        await it.until(lambda: len(it.events("Refused")) == 1)
        it.apply(predictor("p", "a"))
        await it.until(lambda: it.replicas(SHIPPED) == "2")
        it.apply(custom())
        await it.until(lambda: it.conditions("own")["Valid"]["status"] == "True")
        await it.until(lambda: it.replicas("own") == "0")


async def test_invalid_runtime_of_the_cluster_is_told_where_it_stands_and_holds_up_no_other(
    plane: ControlPlane, tmp_path: Path
):
    async with stand(plane, tmp_path) as it:
        bad = custom(grpcEndpoint="port:8033")
        it.apply({**bad, "kind": "ClusterServingRuntime"})
        await it.until(lambda: bool(it.events("InvalidServingRuntime")))
        (event,) = it.events("InvalidServingRuntime")
        assert event["involvedObject"]["kind"] == "ClusterServingRuntime"
        assert "port 8033 is reserved" in event["message"]
        it.apply(predictor("p", "a"))
        await it.until(lambda: it.replicas(SHIPPED) == "2")
        assert "work put off" not in it.controller.log()
        it.apply({**custom(), "kind": "ClusterServingRuntime"})
        await it.until(lambda: it.replicas("own") == "0")


async def test_autoscaler_switched_on_begins_with_the_pods_that_are_there(
    plane: ControlPlane, tmp_path: Path
):
    async with stand(plane, tmp_path) as it:
        it.apply(predictor("p", "a"))
        await it.until(lambda: it.replicas(SHIPPED) == "2")
        scaled = shipped()
        scaled["metadata"]["annotations"] = {CLASS: "hpa", LEAST: "1", MOST: "5"}
        try:
            it.apply(scaled)
            autoscaler = ("get", "hpa", workload_name(SHIPPED), "--ignore-not-found", "-o=name")
            await it.until(lambda: bool(it.kubectl(*autoscaler)))
            assert it.replicas(SHIPPED) == "2"
        finally:
            it.apply(shipped())


async def test_configuration_that_is_wrong_is_told_and_another_controller_has_the_last_good_one(
    plane: ControlPlane, tmp_path: Path
):
    async with stand(plane, tmp_path) as it:
        it.apply(predictor("p", "a"))
        await it.until(lambda: it.replicas(SHIPPED) == "2")
        configure(it, "podsPerRuntime: 3")
        await it.until(lambda: it.replicas(SHIPPED) == "3")
        configure(it, "podsPerRuntime: none")
        await it.until(lambda: len(it.events("InvalidConfiguration")) == 1)
        (event,) = it.events("InvalidConfiguration")
        assert event["involvedObject"]["name"] == CONFIG_MAP
        assert "podsPerRuntime: must be a whole number" in event["message"]
        it.again("two")
        it.apply({**custom(replicas=1)})
        await it.until(lambda: it.replicas("own") == "0")  # it has been at work
        assert it.replicas(SHIPPED) == "3"
        configure(it, "{}")
        await it.until(lambda: it.replicas(SHIPPED) == "2")
        if missing(CONTROLLERS):
            return  # nobody collects garbage
        it.delete("configmap", CONFIG_MAP)
        kept = ("get", "configmap", KEPT_CONFIG_MAP, "--ignore-not-found", "-o=name")
        await it.until(lambda: not it.kubectl(*kept))


def configure(it: Stand, text: str) -> None:
    meta = {"name": CONFIG_MAP, "namespace": NAMESPACE}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
    it.apply({**config_map, "data": {"config.yaml": text}})
