"""A gate before an S3 server of a cluster, where loads stand until a test lets them through.

The proxy is a process in the cluster's network, reached by pods at the node's address. It is told
what to do by lines: `hold PATH`, `wait`, `release`.
"""

import subprocess
import sys
from collections.abc import Iterable

from tests.support.gated_proxy import GatedProxy
from tests.support.kube_cluster import Cluster

DONE = "done"
ENDS_S = 10


class Gate:
    """Listens while it is used as a context manager; `endpoint_url` is what storage keys get."""

    def __init__(self, cluster: Cluster, upstream_url: str) -> None:
        program = (sys.executable, "-m", "tests.support.kube_gate")
        command = cluster.command(*program, upstream_url, cluster.place.ip)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.endpoint_url = self._said()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=ENDS_S)

    def hold(self, path_substring: str) -> None:
        """From now on GETs of objects whose `/bucket/key` contains this wait for `release`."""
        self._tell(f"hold {path_substring}")

    def wait_for_held(self) -> None:
        """Until a GET stands at the gate."""
        self._tell("wait")

    def release(self) -> None:
        self._tell("release")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        said = self._said()
        assert said == DONE, f"{line}: {said}"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def obey(proxy: GatedProxy, lines: Iterable[str]) -> None:
    """Until there are no more lines; each is answered once it is done."""
    for line in lines:
        match line.split():
            case ["hold", path]:
                proxy.hold(path)
            case ["wait"]:
                proxy.wait_for_held()
            case ["release"]:
                proxy.release()
            case _:
                raise ValueError(line)
        print(DONE, flush=True)


if __name__ == "__main__":
    with GatedProxy(*sys.argv[1:]) as it:
        print(it.endpoint_url, flush=True)
        obey(it, sys.stdin)
