"""What containerd, kubelet, kube-proxy and CoreDNS are told in a cluster in a box."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.kube_control_plane import ControlPlane
from tests.support.kube_images import PAUSE

NODE_IP = "10.99.0.1"
PODS = "10.88.0.0/24"


@dataclass(frozen=True)
class NodeConfig:
    containerd: Path
    corefile: Path
    kubelet: Sequence[str | Path]
    proxy: Sequence[str | Path]


def write_node_config(folder: Path, plane: ControlPlane) -> NodeConfig:
    plane.sign("node", "/O=system:nodes/CN=system:node:node1", f"DNS:node1,IP:{NODE_IP}")
    user = {"client-certificate": f"{folder}/node.crt", "client-key": f"{folder}/node.key"}
    plane.write_kubeconfig(folder / "node.kubeconfig", user)
    (folder / "cni").mkdir()
    (folder / "cni/10-bridge.conflist").write_text(json.dumps(_network(folder)))
    (folder / "containerd.toml").write_text(_containerd(folder))
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(folder)))
    (folder / "Corefile").write_text(_corefile(plane))
    return NodeConfig(
        containerd=folder / "containerd.toml",
        corefile=folder / "Corefile",
        kubelet=(
            *("--config", folder / "kubelet.yaml", "--kubeconfig", folder / "node.kubeconfig"),
            *("--hostname-override=node1", f"--node-ip={NODE_IP}"),
            *("--root-dir", folder / "kubelet", "--cert-dir", folder / "certs"),
        ),
        proxy=(
            *("--kubeconfig", plane.kubeconfig, "--hostname-override=node1"),
            *("--proxy-mode=iptables", f"--cluster-cidr={PODS}", "--conntrack-max-per-core=0"),
            *("--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"),
            *("--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"),
        ),
    )


def _network(folder: Path) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "ipam"),
        "ranges": [[{"subnet": PODS}]],
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


def _kubelet(folder: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{folder}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{folder}/node.crt",
        "tlsPrivateKeyFile": f"{folder}/node.key",
        "address": NODE_IP,
        "healthzBindAddress": "127.0.0.1",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{folder.name}",
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


def _corefile(plane: ControlPlane) -> str:
    return f""".:53 {{
  bind {NODE_IP}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {plane.kubeconfig}
    ttl 1
  }}
}}
"""
