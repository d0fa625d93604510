"""Reconciling runtimes: pods come and go with use, mistakes are told, nothing is written twice."""

from typing import Any

import pytest

from mesh.controller.config import DEFAULTS, Config, read_config
from mesh.controller.deployments import runtime_of
from mesh.controller.pods import RUNTIME_FILE
from mesh.controller.runtimes import (
    REFUSED_AGAIN_S,
    RESYNC_S,
    SCALE_MANAGER,
    Runtimes,
    usage_of,
)
from mesh.controller.scale_annotations import CLASS, LEAST, MOST
from mesh.controller.scaling import Usage
from mesh.kube.port import KubeFailed
from mesh.wire.runtime_resource import parse_runtime_state
from tests.controller.runtimes import PLACE, shipped
from tests.controller.some_kube import SomeKube

NAME = "mlserver-1.x"
DEPLOYMENT = ("Deployment", f"wml-serving-{NAME}")
AUTOSCALER = ("HorizontalPodAutoscaler", f"wml-serving-{NAME}")


class Stand:
    def __init__(self, *, is_there: bool = True) -> None:
        self.kube = SomeKube()
        self.now_s = 1000.0
        self.config = DEFAULTS
        if is_there:
            self.kube.put(shipped())
        self.runtimes = self.fresh()

    def fresh(self) -> Runtimes:
        return Runtimes(self.kube, "models", PLACE, self._config, lambda: self.now_s)

    def _config(self) -> Config:
        return self.config

    def use(self, predictors: int, wanted: str = "", last_use: str = "") -> None:
        status = {"predictors": predictors, "wanted": wanted, "lastUse": last_use}
        self.runtimes.used(NAME, {"status": status})

    async def go(self) -> float | None:
        return await self.runtimes.reconcile(NAME)

    async def wrote(self) -> list[tuple[str, str, str]]:
        """What one more reconciliation writes."""
        self.kube.written.clear()
        await self.go()
        return self.kube.written

    @property
    def replicas(self) -> int:
        return int(self.kube.objects[DEPLOYMENT]["spec"]["replicas"])

    def ready(self, count: int) -> None:
        self.kube.objects[DEPLOYMENT]["status"] = {"readyReplicas": count}

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.objects["ServingRuntime", NAME]["status"]
        return found

    @property
    def told(self) -> list[str]:
        return [item["status"]["state"] for item in self.runtimes.for_the_mesh()]


async def test_runtime_has_no_pods_at_first_and_the_mesh_knows_it():
    stand = Stand()
    stand.use(0)
    await stand.go()
    assert stand.replicas == 0
    assert stand.status["state"] == "Zero"
    record = parse_runtime_state(stand.runtimes.for_the_mesh()[0])
    assert record is not None
    assert (record.name, record.state.value) == (NAME, "Zero")
    assert {item.name for item in record.model_types} == {"sklearn", "xgboost", "lightgbm"}


async def test_first_predictor_starts_pods_and_the_last_ones_end_takes_them_after_the_grace():
    stand = Stand()
    stand.use(1)
    await stand.go()
    assert (stand.replicas, stand.told) == (2, ["Starting"])
    stand.ready(1)
    await stand.go()
    assert stand.told == ["Running"]
    stand.use(0)
    assert await stand.go() == 60.0
    assert stand.replicas == 2
    stand.now_s += 60.0
    await stand.go()
    assert (stand.replicas, stand.told) == (0, ["Zero"])
    assert [reason for reason, _ in stand.kube.events] == ["Started", "ScaledToZero"]


async def test_nothing_is_written_while_nothing_changes():
    stand = Stand()
    stand.use(1)
    await stand.go()
    stand.ready(1)
    await stand.go()
    assert await stand.wrote() == []
    assert await stand.wrote() == []


async def test_what_somebody_else_changed_or_deleted_is_put_right():
    stand = Stand()
    stand.use(1)
    await stand.go()
    stand.kube.objects[DEPLOYMENT]["spec"]["replicas"] = 9
    stand.kube.objects[DEPLOYMENT]["metadata"]["generation"] += 1
    assert ("apply", "Deployment", "wmlserving-controller") in await stand.wrote()
    assert stand.replicas == 2
    del stand.kube.objects[DEPLOYMENT]
    await stand.go()
    assert stand.replicas == 2
    stand.now_s += 600
    assert ("apply", "ConfigMap", "wmlserving-controller") in await stand.wrote()


async def test_while_the_mesh_does_not_answer_everything_stays():
    stand = Stand()
    await stand.go()
    assert stand.replicas == 0
    stand.use(1)
    await stand.go()
    stand.runtimes.mesh_lost()
    stand.now_s += 10_000
    await stand.go()
    assert stand.replicas == 2


async def test_controller_that_begins_takes_things_as_they_are():
    stand = Stand()
    stand.use(1)
    await stand.go()
    stand.ready(2)
    stand.runtimes = stand.fresh()
    await stand.go()
    assert (stand.replicas, stand.told) == (2, ["Running"])
    assert [reason for reason, _ in stand.kube.events] == ["Started"]


async def test_scale_to_zero_switched_off_starts_it_without_a_predictor():
    stand = Stand()
    stand.config = read_config("scaleToZero: {enabled: false}")
    await stand.go()
    assert stand.replicas == 2


async def test_idle_runtime_ends_and_the_next_request_brings_it_back():
    stand = Stand()
    stand.config = read_config("scaleToZero: {idleSeconds: 300}")
    stand.use(1)
    assert await stand.go() == 300.0
    stand.now_s += 300
    await stand.go()
    assert stand.replicas == 0
    stand.use(1, wanted="1970-01-01T00:21:45Z")
    await stand.go()
    assert stand.replicas == 2


async def test_autoscaler_keeps_its_replicas_and_never_fights_with_zero():
    stand = Stand()
    document = shipped()
    document["metadata"]["annotations"] = {CLASS: "hpa", LEAST: "2", MOST: "5"}
    stand.kube.put(document)
    stand.use(1)
    await stand.go()
    assert AUTOSCALER in stand.kube.objects
    assert stand.replicas == 2
    assert ("apply", "Deployment", SCALE_MANAGER) in stand.kube.written
    stand.kube.objects[DEPLOYMENT]["spec"]["replicas"] = 4
    stand.kube.objects[DEPLOYMENT]["metadata"]["generation"] += 1
    await stand.go()
    assert stand.replicas == 4
    stand.use(0)
    await stand.go()
    stand.now_s += 60
    await stand.go()
    assert AUTOSCALER not in stand.kube.objects
    assert stand.replicas == 0
    stand.use(1)
    await stand.go()
    assert (stand.replicas, AUTOSCALER in stand.kube.objects) == (2, True)


async def test_autoscaler_switched_on_begins_with_the_pods_that_are_there():
    stand = Stand()
    stand.config = read_config("podsPerRuntime: 3")
    stand.use(1)
    await stand.go()
    assert stand.replicas == 3
    document = shipped()
    document["metadata"]["annotations"] = {CLASS: "hpa", LEAST: "1", MOST: "5"}
    stand.kube.put(document)
    await stand.go()
    assert stand.replicas == 3
    assert AUTOSCALER in stand.kube.objects
    assert await stand.wrote() == []


async def test_autoscaler_that_is_no_longer_asked_for_goes():
    stand = Stand()
    document = shipped()
    document["metadata"]["annotations"] = {CLASS: "hpa"}
    stand.kube.put(document)
    stand.use(1)
    await stand.go()
    stand.kube.put(shipped())
    await stand.go()
    assert AUTOSCALER not in stand.kube.objects
    assert stand.replicas == 2


async def test_invalid_runtime_says_why_and_what_ran_goes_on():
    stand = Stand()
    stand.use(1)
    await stand.go()
    document = shipped()
    document["spec"]["containers"].append({"name": "mesh", "image": "x"})
    stand.kube.put(document)
    await stand.go()
    problem = "spec.containers[1].name: mesh is reserved for a container of the mesh"
    condition, _ = stand.status["conditions"]
    assert (condition["type"], condition["status"]) == ("Valid", "False")
    assert condition["message"] == problem
    assert stand.status["observedGeneration"] == 2
    assert stand.kube.events[-1] == ("InvalidServingRuntime", problem)
    assert stand.replicas == 2
    assert await stand.wrote() == []
    assert stand.told == ["Starting"]
    stand.kube.put(shipped())
    await stand.go()
    assert stand.status["conditions"][0]["status"] == "True"


async def test_invalid_runtime_stays_known_to_the_mesh_when_the_controller_begins_anew():
    stand = Stand()
    stand.use(1)
    await stand.go()
    stand.ready(1)
    document = shipped()
    document["spec"]["containers"].append({"name": "mesh", "image": "x"})
    document["spec"]["supportedModelTypes"] = [{"name": "other", "version": "1"}]
    stand.kube.put(document)
    stand.runtimes = stand.fresh()
    await stand.go()
    assert stand.told == ["Running"]
    record = parse_runtime_state(stand.runtimes.for_the_mesh()[0])
    assert record is not None
    assert {item.name for item in record.model_types} == {"sklearn", "xgboost", "lightgbm"}
    assert stand.status["state"] == "Running"
    stand.ready(0)
    await stand.go()
    assert stand.told == ["Starting"]


async def test_invalid_runtime_that_never_ran_is_unknown_to_the_mesh():
    stand = Stand()
    document = shipped()
    document["spec"]["containers"].append({"name": "mesh", "image": "x"})
    stand.kube.put(document)
    await stand.go()
    assert stand.told == []
    file = {"kind": "ConfigMap", "metadata": {"name": DEPLOYMENT[1]}, "data": {RUNTIME_FILE: "["}}
    stand.kube.put(file)
    await stand.go()
    assert stand.told == []


async def test_what_kubernetes_refuses_of_a_runtime_is_told_and_tried_again():
    stand = Stand()
    stand.use(1)
    words = 'Deployment.apps "x" is invalid: spec.template.spec.tolerations[0].operator: Invalid'
    stand.kube.refusals["Deployment"] = KubeFailed(422, words)
    assert await stand.go() == REFUSED_AGAIN_S
    valid, available = stand.status["conditions"]
    assert (valid["status"], valid["reason"], valid["message"]) == ("False", "Refused", words)
    assert (available["status"], available["reason"]) == ("False", "Starting")
    assert stand.told == ["Starting"]
    assert stand.kube.refused == 1
    for number in range(5):  # words that differ each time are no reason to write each time
        stand.kube.refusals["Deployment"] = KubeFailed(422, f"{words} {number}")
        assert await stand.wrote() == []
    assert (stand.kube.refused, stand.kube.events.count(("Refused", words))) == (1, 1)
    stand.now_s += REFUSED_AGAIN_S
    await stand.go()
    assert stand.kube.refused == 2
    stand.kube.refusals.clear()
    stand.now_s += REFUSED_AGAIN_S
    assert await stand.go() == RESYNC_S
    assert stand.replicas == 2
    assert stand.status["conditions"][0]["status"] == "True"


async def test_what_is_refused_leaves_the_pods_of_before_their_file_and_is_not_told_to_the_mesh():
    stand = Stand()
    stand.use(1)
    await stand.go()
    stand.ready(1)
    before = stand.kube.objects["ConfigMap", DEPLOYMENT[1]]["data"]
    document = shipped()
    document["spec"]["supportedModelTypes"] = [{"name": "other", "version": "1"}]
    stand.kube.put(document)
    stand.kube.refusals["Deployment"] = KubeFailed(422, "spec.template: Invalid value")
    await stand.go()
    assert stand.kube.objects["ConfigMap", DEPLOYMENT[1]]["data"] == before
    (told,) = stand.runtimes.for_the_mesh()
    assert "other" not in str(told)
    assert stand.status["conditions"][0]["reason"] == "Refused"
    stand.kube.refusals.clear()
    document["spec"]["supportedModelTypes"] = [{"name": "another", "version": "1"}]
    stand.kube.put(document)
    await stand.go()
    assert "another" in str(stand.runtimes.for_the_mesh())
    assert "another" in str(stand.kube.objects["ConfigMap", DEPLOYMENT[1]]["data"])


async def test_call_that_gets_no_answer_is_no_refusal():
    stand = Stand()
    stand.kube.refusals["Deployment"] = KubeFailed(0, "connection reset")
    with pytest.raises(KubeFailed):
        await stand.go()
    assert "status" not in stand.kube.objects["ServingRuntime", NAME]


async def test_status_says_whether_pods_are_there_and_why_not():
    stand = Stand()

    def available() -> tuple[str, str, str]:
        found = stand.status["conditions"][1]
        return found["status"], found["reason"], found["message"]

    await stand.go()
    assert available() == ("False", "Zero", "")
    stand.use(1)
    await stand.go()
    assert available() == ("False", "Starting", "")
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    fine = {"type": "Progressing", "status": "True"}
    words = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    stand.kube.objects[DEPLOYMENT]["status"] = {"conditions": [fine, {**refused, "message": words}]}
    await stand.go()
    assert available() == ("False", "FailedCreate", words)
    before = stand.status["conditions"][1]["lastTransitionTime"]
    stand.now_s += 10
    assert await stand.wrote() == []
    stand.ready(1)
    await stand.go()
    assert available() == ("True", "Running", "")
    assert stand.status["conditions"][1]["lastTransitionTime"] != before
    assert stand.status["conditions"][0]["lastTransitionTime"] == before


async def test_document_that_is_none_of_ours_is_refused_too():
    stand = Stand()
    document = shipped()
    document["spec"]["replicas"] = -1
    stand.kube.put(document)
    await stand.go()
    assert "spec.replicas" in stand.status["conditions"][0]["message"]
    assert stand.told == []


async def test_disabled_runtime_has_nothing_and_comes_back():
    stand = Stand()
    stand.use(1)
    await stand.go()
    document = shipped()
    document["spec"]["disabled"] = True
    stand.kube.put(document)
    await stand.go()
    assert DEPLOYMENT not in stand.kube.objects
    assert (stand.told, stand.status["state"]) == ([], "Disabled")
    assert await stand.wrote() == []
    stand.kube.put(shipped())
    await stand.go()
    assert (stand.replicas, stand.told) == (2, ["Starting"])


async def test_deleted_runtime_takes_its_workloads_along():
    stand = Stand()
    stand.use(1)
    await stand.go()
    del stand.kube.objects["ServingRuntime", NAME]
    assert await stand.go() is None
    assert stand.kube.objects == {}
    assert stand.runtimes.for_the_mesh() == []


async def test_runtime_of_the_cluster_serves_where_the_namespace_has_none_of_that_name():
    stand = Stand(is_there=False)
    stand.kube.put({**shipped(), "kind": "ClusterServingRuntime"})
    stand.use(1)
    await stand.go()
    owner = stand.kube.objects[DEPLOYMENT]["metadata"]["ownerReferences"][0]
    assert owner["kind"] == "ClusterServingRuntime"
    assert ("status", "ClusterServingRuntime", "wmlserving-controller") not in stand.kube.written
    assert stand.kube.events
    assert set(stand.kube.event_namespaces) == {"models"}


async def test_invalid_runtime_of_the_cluster_has_its_event_where_it_stands():
    stand = Stand(is_there=False)
    document = shipped()
    document["spec"]["containers"].append({"name": "mesh", "image": "x"})
    stand.kube.put({**document, "kind": "ClusterServingRuntime"})
    await stand.go()
    assert [reason for reason, _ in stand.kube.events] == ["InvalidServingRuntime"]
    assert stand.kube.event_namespaces == ["models"]


async def test_configuration_that_changes_reaches_the_deployment():
    stand = Stand()
    stand.use(1)
    await stand.go()
    stand.config = read_config("podsPerRuntime: 4")
    await stand.go()
    assert stand.replicas == 4


def test_use_is_read_as_the_mesh_writes_it():
    said = {"status": {"predictors": 2, "wanted": "1970-01-01T00:00:10Z", "lastUse": ""}}
    assert usage_of(said) == Usage(2, 10.0, None)
    assert usage_of({}) == Usage(0)


def test_deployment_says_whose_it_is():
    label = {"wmlserving.ai.ibm.com/runtime": NAME}
    assert runtime_of({"metadata": {"labels": label}}) == NAME
    assert runtime_of({"metadata": {}}) is None
