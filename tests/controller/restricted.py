"""The `restricted` Pod Security level, as far as our pods could offend against it."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}


def offences(pod: dict[str, Any]) -> Iterator[str]:
    """Everything in a pod's spec that the level refuses."""
    level = pod.get("securityContext", {})
    if level.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile"
    if level.get("runAsNonRoot") is not True or level.get("runAsUser") == 0:
        yield "runAsNonRoot"
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    for volume in pod.get("volumes", ()):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        yield from (f"{container['name']}: {what}" for what in _of_container(container))


def _of_container(container: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "capabilities"
    if context.get("privileged") or context.get("runAsUser") == 0:
        yield "privileged"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
