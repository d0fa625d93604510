"""What containerd, kubelet, kube-proxy and CoreDNS are told in a cluster in a box."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.kube_control_plane import TOKEN, ControlPlane
from tests.support.kube_images import PAUSE

PODS = "10.88.0.0/16"


@dataclass(frozen=True)
class Place:
    """Where a node is: its addresses, its own folder, and its control group in each hierarchy."""

    number: int
    folder: Path
    group: str

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def ip(self) -> str:
        return f"10.99.0.{self.number}"

    @property
    def pods(self) -> str:
        return f"10.88.{self.number}.0/24"


@dataclass(frozen=True)
class NodeConfig:
    containerd: Path
    corefile: Path
    kubelet: Sequence[str | Path]
    proxy: Sequence[str | Path]


def write_node_config(place: Place, plane: ControlPlane) -> NodeConfig:
    folder, name = place.folder, place.name
    certificate = plane.sign(name, f"/O=system:nodes/CN=system:node:{name}", f"IP:{place.ip}")
    user = {"client-certificate": f"{certificate}.crt", "client-key": f"{certificate}.key"}
    plane.write_kubeconfig(folder / "node.kubeconfig", user, plane.address)
    plane.write_kubeconfig(folder / "proxy.kubeconfig", {"token": TOKEN}, plane.address)
    (folder / "cni").mkdir()
    (folder / "cni/10-bridge.conflist").write_text(json.dumps(_network(place)))
    (folder / "containerd.toml").write_text(_containerd(folder))
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(place, plane, certificate)))
    (folder / "Corefile").write_text(_corefile(place))
    return NodeConfig(
        containerd=folder / "containerd.toml",
        corefile=folder / "Corefile",
        kubelet=(
            *("--config", folder / "kubelet.yaml", "--kubeconfig", folder / "node.kubeconfig"),
            *(f"--hostname-override={name}", f"--node-ip={place.ip}"),
            *("--root-dir", folder / "kubelet", "--cert-dir", folder / "certs"),
        ),
        proxy=(
            *("--kubeconfig", folder / "proxy.kubeconfig", f"--hostname-override={name}"),
            *("--proxy-mode=iptables", f"--cluster-cidr={PODS}", "--conntrack-max-per-core=0"),
            *("--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"),
            *("--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"),
        ),
    )


def _network(place: Place) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": str(place.folder / "ipam"),
        "ranges": [[{"subnet": place.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]}


def _containerd(folder: Path) -> str:
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true  # there may be no CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""


def _kubelet(place: Place, plane: ControlPlane, certificate: Path) -> dict[str, object]:
    folder = place.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{plane.folder}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{certificate}.crt",
        "tlsPrivateKeyFile": f"{certificate}.key",
        "address": place.ip,
        "healthzBindAddress": "127.0.0.1",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.group}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "resolvConf": "",
        "clusterDNS": ["10.0.0.10"],
        "clusterDomain": "cluster.local",
        "oomScoreAdj": 0,
        "podLogsDir": f"{folder}/pod-logs",
        "nodeStatusUpdateFrequency": "5s",
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": False,
    }


def _corefile(place: Place) -> str:
    return f""".:53 {{
  bind {place.ip}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {place.folder}/proxy.kubeconfig
    ttl 1
  }}
}}
"""
