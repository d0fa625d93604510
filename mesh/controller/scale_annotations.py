"""What a ServingRuntime's annotations say: limits of its adapter, and automatic scaling."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.controller.names import GROUP
from mesh.wire.runtime_manifest import ServingRuntimeManifest

# annotation: the adapter's variable, and the least that it may be.
LIMITS = {
    "maxLoadingConcurrency": ("LOADING_CONCURRENCY", 1),
    "perModelConcurrencyLimit": ("LIMIT_PER_MODEL_CONCURRENCY", 0),
}
CLASS = f"{GROUP}/autoscalerClass"
METRIC = f"{GROUP}/metrics"
TARGET = f"{GROUP}/targetUtilizationPercentage"
LEAST, MOST = f"{GROUP}/min-scale", f"{GROUP}/max-scale"
METRICS = ("cpu", "memory")


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """A HorizontalPodAutoscaler's bounds, and the use of a request that it aims at, in percent."""

    least: int = 1
    most: int = 1
    metric: str = "cpu"
    target: int = 80


def limits(annotations: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The adapter's variables, and what is wrong with the annotations."""
    found, problems = {}, []
    for name, (variable, least) in LIMITS.items():
        if name in annotations:
            number = _number(annotations[name], least, 10_000)
            if number is None:
                problems.append(_problem(name, f"a number from {least} to 10000"))
            else:
                found[variable] = str(number)
    return found, problems


def autoscaling(runtime: ServingRuntimeManifest) -> tuple[Autoscaling | None, list[str]]:
    """How the runtime scales on its own, None where it does not, and what is wrong with that."""
    annotations = runtime.metadata.annotations or {}
    if CLASS not in annotations:
        return None, []
    problems = []
    if annotations[CLASS] != "hpa":
        problems.append(_problem(CLASS, "hpa"))
    if runtime.spec.replicas is not None:
        problems.append(f"spec.replicas: cannot be set with the annotation {CLASS}")
    metric = annotations.get(METRIC, "cpu")
    if metric not in METRICS:
        problems.append(_problem(METRIC, " or ".join(METRICS)))
    least, most = (_number(annotations.get(name, "1"), 1, 1000) for name in (LEAST, MOST))
    target = _number(annotations.get(TARGET, "80"), 1, 1000)
    for name, number in ((LEAST, least), (MOST, most), (TARGET, target)):
        if number is None:
            problems.append(_problem(name, "a number from 1 to 1000"))
    if least is not None and most is not None and least > most:
        problems.append(f"metadata.annotations: {LEAST} must not be greater than {MOST}")
    if problems or least is None or most is None or target is None:
        return None, problems
    return Autoscaling(least, most, metric, target), []


def _number(text: str, least: int, most: int) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    return number if least <= number <= most else None


def _problem(name: str, wanted: str) -> str:
    return f"metadata.annotations: {name} must be {wanted}"
