"""Files for KServe's ModelMesh as ours: what comes out is valid, what has no equal is named."""

from typing import Any

import pytest

from mesh.wire.convert import convert
from mesh.wire.documents import load_documents
from mesh.wire.manifests import parse_predictor
from mesh.wire.runtime_manifest import parse_runtime

PREDICTOR = """
apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata:
  name: mnist
  namespace: models
  uid: 1-2
  labels: {team: a}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: "{}"
spec:
  modelType: {name: sklearn, version: "0"}
  path: sklearn/mnist-svm.joblib
  storage:
    s3: {secretKey: localMinIO, bucket: modelmesh}
  gpu: required
status: {available: true}
"""

SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: mnist
  annotations:
    serving.kserve.io/deploymentMode: ModelMesh
    serving.kserve.io/secretKey: localMinIO
    serving.kserve.io/schemaPath: schema.json
    note: kept
spec:
  transformer: {containers: []}
  predictor:
    minReplicas: 1
    sklearn:
      storageUri: s3://bucket/sklearn/mnist-svm.joblib
      protocolVersion: v2
"""

RUNTIME = """
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata:
  name: mlserver-1.x
  annotations: {serving.kserve.io/autoscalerClass: hpa, maxLoadingConcurrency: "2"}
spec:
  supportedModelFormats:
    - {name: sklearn, version: "0", autoSelect: true}
    - {name: mllib}
  protocolVersions: [grpc-v2]
  multiModel: true
  grpcEndpoint: "port:8085"
  grpcDataEndpoint: "port:8001"
  containers:
    - {name: mlserver, image: "seldonio/mlserver:1.3.2", resources: {requests: {memory: 1Gi}}}
  builtInAdapter: {serverType: mlserver, runtimeManagementPort: 8001}
"""


def one(text: str, **changes: Any) -> dict[str, Any]:
    (document,) = load_documents(text)
    assert isinstance(document, dict)
    document["spec"] |= changes
    return document


def lost(document: object) -> str:
    done = convert([document])
    assert done.objects == []
    assert done.notes[-1].is_lost
    return done.notes[-1].text


def texts(document: object) -> list[str]:
    done = convert([document])
    assert len(done.objects) == 1
    return [note.text for note in done.notes]


def test_predictor_keeps_what_it_says_and_its_name():
    done = convert([one(PREDICTOR)])
    assert done.objects == [
        {
            "apiVersion": "wmlserving.ai.ibm.com/v1",
            "kind": "Predictor",
            "metadata": {"name": "mnist", "namespace": "models", "labels": {"team": "a"}},
            "spec": {
                "modelType": {"name": "sklearn", "version": "0"},
                "path": "sklearn/mnist-svm.joblib",
                "storage": {"s3": {"secretKey": "localMinIO", "bucket": "modelmesh"}},
            },
        }
    ]
    assert parse_predictor(done.objects[0]).name == "mnist"
    (note,) = done.notes
    assert (note.about, note.is_lost) == ("Predictor/mnist", False)
    assert note.text == "spec.gpu: left out; ModelMesh did not look at it either"


def test_predictor_of_the_newer_form_is_taken_as_it_is():
    storage = {"key": "a", "path": "b", "parameters": {"bucket": "c"}}
    document = one(PREDICTOR, path=None, storage=storage, runtime={"name": "x"})
    del document["spec"]["path"], document["spec"]["gpu"]
    done = convert([document])
    assert done.notes == []
    assert done.objects[0]["spec"] == document["spec"]


def test_predictor_on_a_volume_has_no_equal():
    storage = {"persistentVolumeClaim": {"claimName": "x"}}
    assert lost(one(PREDICTOR, storage=storage)) == (
        "not converted: spec.storage.persistentVolumeClaim: models are pulled from S3, copy them"
        " there"
    )


def test_what_is_wrong_with_the_result_is_told():
    assert texts(one(PREDICTOR, modelType={}))[-1] == (
        "must still be put right: spec.modelType.name: required"
    )


def test_inference_service_of_the_older_form_becomes_a_predictor():
    done = convert([one(SERVICE)])
    assert done.objects[0]["metadata"] == {"name": "mnist", "annotations": {"note": "kept"}}
    assert done.objects[0]["kind"] == "Predictor"
    assert done.objects[0]["spec"] == {
        "modelType": {"name": "sklearn"},
        "storageUri": "s3://bucket/sklearn/mnist-svm.joblib",
        "storage": {"key": "localMinIO", "schemaPath": "schema.json"},
    }
    assert parse_predictor(done.objects[0]).source.storage_key == "localMinIO"
    assert [note.text for note in done.notes] == [
        "spec.transformer: left out; there are no transformers: deploy it as a service of its own",
        "spec.predictor.minReplicas: left out; copies of a model follow its use; spec.minCopies"
        " sets the least",
        "spec.predictor.sklearn.protocolVersion: left out; every runtime here speaks the V2"
        " protocol",
    ]


def test_inference_service_of_the_newer_form_becomes_a_predictor():
    model = {
        "modelFormat": {"name": "onnx", "version": "1"},
        "runtime": "own",
        "storage": {"key": "k", "path": "p"},
    }
    document = one(SERVICE, predictor={"model": model})
    document["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": "ModelMesh"}
    del document["spec"]["transformer"]
    done = convert([document])
    assert done.notes == []
    assert done.objects[0]["spec"] == {
        "modelType": {"name": "onnx", "version": "1"},
        "runtime": {"name": "own"},
        "storage": {"key": "k", "path": "p"},
    }


def test_inference_service_by_uri_alone_uses_the_default_key():
    document = one(SERVICE, predictor={"sklearn": {"storageUri": "s3://b/p"}})
    annotations = document["metadata"]["annotations"]
    for name in ("secretKey", "schemaPath"):
        del annotations[f"serving.kserve.io/{name}"]
    annotations["serving.kserve.io/servingRuntime"] = "own"
    (made,) = convert([document]).objects
    assert made["spec"] == {
        "modelType": {"name": "sklearn"},
        "runtime": {"name": "own"},
        "storageUri": "s3://b/p",
    }


@pytest.mark.parametrize(
    ("predictor", "why"),
    [
        (
            {"sklearn": {"storageUri": "pvc://claim/path"}},
            "spec.predictor.sklearn.storageUri: models are pulled from S3 and file://,"
            " not from pvc, copy them",
        ),
        (
            {"containers": [{"image": "x"}]},
            "spec.predictor: has no model, and containers of ones own cannot share a runtime",
        ),
        (None, "spec.predictor: has no model, and containers of ones own cannot share a runtime"),
    ],
)
def test_inference_service_that_cannot_be_served_is_left_out(predictor: Any, why: str):
    assert lost(one(SERVICE, predictor=predictor)) == f"not converted: {why}"


def test_inference_service_of_another_deployment_mode_is_left_out():
    document = one(SERVICE)
    del document["metadata"]["annotations"]
    assert lost(document) == (
        "not converted: metadata.annotations: serving.kserve.io/deploymentMode is not ModelMesh"
    )


def test_runtime_selects_the_formats_that_it_selected():
    done = convert([one(RUNTIME)])
    (made,) = done.objects
    assert made["kind"] == "ClusterServingRuntime"
    assert made["metadata"]["annotations"] == {
        "wmlserving.ai.ibm.com/autoscalerClass": "hpa",
        "maxLoadingConcurrency": "2",
    }
    spec = parse_runtime({**made, "kind": "ServingRuntime"}).to_spec()
    assert {item.name for item in spec.model_types} == {"sklearn"}
    assert [note.text for note in done.notes] == [
        "spec.protocolVersions: left out; every runtime here speaks the V2 protocol",
        "for MLServer there is deploy/runtimes/mlserver-1.x.yaml, with settings that work",
        "spec.containers: `wml-serving serve` needs a command",
    ]


def test_runtime_with_a_command_and_types_is_taken_as_it_is():
    document = one(RUNTIME, supportedModelTypes=[{"name": "a"}])
    del document["spec"]["supportedModelFormats"]
    document["spec"]["containers"][0]["command"] = ["mlserver"]
    assert len(texts(document)) == 2


def test_runtime_with_its_own_server_is_told_that_it_pulls():
    document = one(RUNTIME)
    del document["spec"]["builtInAdapter"]
    assert "spec.storageHelper: there is no puller, the runtime must pull its models itself" in (
        texts(document)
    )
    document["spec"]["storageHelper"] = {"disabled": True}
    assert len(texts(document)) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"multiModel": False},
            "spec.multiModel: it serves one model a pod, which is not done here",
        ),
        (
            {"builtInAdapter": {"serverType": "triton"}},
            "spec.builtInAdapter.serverType: there is no adapter for triton",
        ),
    ],
)
def test_runtime_without_an_equal_is_left_out(changes: dict[str, Any], why: str):
    assert lost(one(RUNTIME, **changes)) == f"not converted: {why}"


def test_strange_documents_are_named_and_left_out():
    assert lost(None) == "not converted: not a mapping"
    assert lost({"kind": "Pod", "apiVersion": "v1"}) == (
        "not converted: Pod of v1 is none of ModelMesh's"
    )
    head = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "Predictor", "metadata": {}}
    assert lost(head) == "not converted: spec: must be a mapping"


def test_formats_of_a_strange_shape_are_left_to_the_check():
    assert any(
        "must still be put right" in text for text in texts(one(RUNTIME, supportedModelFormats=[1]))
    )
    assert any("put right" in text for text in texts(one(RUNTIME, containers=[1])))


def test_order_is_kept_and_one_that_is_lost_stops_no_other():
    done = convert([one(PREDICTOR), None, one(SERVICE)])
    assert [item["metadata"]["name"] for item in done.objects] == ["mnist", "mnist"]
    assert sum(note.is_lost for note in done.notes) == 1
