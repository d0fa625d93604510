"""storage-config is followed on a real API server, by the rights and the token of runtime pods."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from mesh.adapters.secret_mirror import SecretMirror
from mesh.controller.names import RUNTIME_ACCOUNT
from mesh.kube.client import KubeClient, api_client
from mesh.ops.clock import wall_s
from mesh.ops.tasks import Tasks
from tests.controller.runtimes import DEPLOY
from tests.support.kube_control_plane import ControlPlane, kubectl

NAMESPACE = "storage-keys"
SEEN_S = 2.0


async def seen_after(condition: Callable[[], bool]) -> float:
    """How long it took, in seconds."""
    began_s = time.monotonic()
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - files
            await asyncio.sleep(0.01)
    return time.monotonic() - began_s


async def test_changed_secret_reaches_the_folder_within_two_seconds(
    control_plane: ControlPlane, tmp_path: Path
):
    def run(*arguments: str) -> str:
        return kubectl(control_plane, "--namespace", NAMESPACE, *arguments)

    kubectl(control_plane, "create", "namespace", NAMESPACE)
    run("apply", "--server-side", "-f", str(DEPLOY / "rbac/runtime.yaml"))
    run("create", "secret", "generic", "storage-config", "--from-literal=a=1")
    token = run("create", "token", RUNTIME_ACCOUNT).strip()
    kubeconfig = tmp_path / "adapter.kubeconfig"
    control_plane.write_kubeconfig(kubeconfig, {"token": token})
    folder, tasks = tmp_path / "keys", Tasks()
    async with await api_client(kubeconfig) as api:
        kube = KubeClient(api, wall_s)
        mirror = SecretMirror(kube, NAMESPACE, "storage-config", folder)
        tasks.spawn(mirror.run(), "mirror")
        await mirror.first_sight()
        assert (folder / "a").read_text() == "1"
        patch = json.dumps({"stringData": {"a": "2", "b": "3"}})
        await asyncio.to_thread(run, "patch", "secret", "storage-config", "-p", patch)
        is_there = (folder / "b").exists
        assert await seen_after(lambda: is_there() and (folder / "a").read_text() == "2") < SEEN_S
        await asyncio.to_thread(run, "delete", "secret", "storage-config")
        assert await seen_after(lambda: not list(folder.iterdir())) < SEEN_S
        await asyncio.to_thread(run, "create", "secret", "generic", "storage-config")
        await tasks.close()
    kubectl(control_plane, "delete", "namespace", NAMESPACE, "--wait=false")
