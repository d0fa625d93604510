"""Predictors as users apply them, for the runtime that is shipped."""

from mesh.kube.kinds import PREDICTOR
from mesh.kube.port import Json
from tests.support.builders import document
from tests.support.kube_audit import NAMESPACE


def predictor(name: str, path: str) -> Json:
    return {
        "apiVersion": PREDICTOR.api_version,
        "kind": PREDICTOR.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": document(path),
    }
