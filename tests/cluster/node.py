"""A node's machine: containerd, kubelet and kube-proxy."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import pki, registry
from tests.cluster.controlplane import NODE_GRACE, user_kubeconfig
from tests.cluster.layout import Arch, Layout, Node
from tests.cluster.spec import MachineSpec, Mount, Service

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Where distributions keep the CNI plugins: Debian, Fedora, by hand.
CNI_DIRECTORIES = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
# Kubelet sets these, which are the host's own: it gets files of its own to write to.
HOST_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
}


def spec(
    layout: Layout,
    node: Node,
    programs: Mapping[str, Path],
    *,
    mtu: int,
    sandbox_image: str,
) -> MachineSpec:
    """Returns the machine of a node; issues the certificates that it needs.

    Args:
        layout: of the instance.
        node: which one.
        programs: path by name. Kubelet is of the node's architecture, all else of the host's.
        mtu: of its link and its pods', bytes.
        sandbox_image: reference of the pause image.
    """
    addresses = layout.addresses
    address = addresses.node(node.index)
    directory = layout.machines / node.name
    authority = pki.Authority(layout.pki, "ca")
    serving = authority.issue(f"{node.name}-serving", common_name=node.name, hosts=(node.name, str(address)))
    kubeconfig = user_kubeconfig(layout, node.name, common_name=f"system:node:{node.name}", organization="system:nodes")
    proxy_kubeconfig = user_kubeconfig(layout, "kube-proxy", common_name="system:kube-proxy")
    kubelet = programs["kubelet" if node.arch is Arch.AMD64 else "kubelet-arm64"]
    shim_directory = programs["containerd-shim-runc-v2"].parent
    return MachineSpec(
        name=node.name,
        address=f"{address}/{addresses.machines.prefixlen}",
        gateway=str(addresses.host),
        mtu=mtu,
        files={
            "hosts": f"127.0.0.1 localhost {node.name}\n{layout.hosts_line}\n",
            "resolv.conf": f"nameserver {addresses.control}\n",
            "containerd.toml": _containerd(sandbox_image),
            "cni/10-bridge.conflist": _cni(str(addresses.node_pods(node.index)), mtu),
            "kubelet.json": json.dumps(_kubelet(layout, node, authority.pair, serving)),
            "kube-proxy.json": json.dumps(_kube_proxy(layout, node, proxy_kubeconfig)),
            **{f"certs.d/{name}": text for name, text in registry.containerd_hosts(layout).items()},
            **{f"sysctl/{key}": f"{value}\n" for key, value in HOST_SYSCTLS.items()},
        },
        directories=("containerd", "kubelet", "log", "ipam"),
        mounts=(
            Mount("/run/machine/hosts", "/etc/hosts", make_target=False),
            Mount(str(directory / "containerd"), "/run/machine/containerd"),
            Mount(str(directory / "kubelet"), "/run/machine/kubelet"),
            Mount(str(directory / "ipam"), "/run/machine/ipam"),
            Mount(str(directory / "log"), "/var/log", make_target=False),
            *(Mount(f"/run/machine/sysctl/{key}", f"/proc/sys/{key}", make_target=False) for key in HOST_SYSCTLS),
        ),
        sysctls={"net/ipv4/ip_forward": "1"},
        services=(
            Service(
                "containerd",
                (str(programs["containerd"]), "--config", "/run/machine/containerd.toml", "--log-level", "warn"),
                env={"PATH": f"{shim_directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            ),
            Service(
                "kubelet",
                (
                    str(kubelet),
                    "--config=/run/machine/kubelet.json",
                    f"--kubeconfig={kubeconfig}",
                    "--root-dir=/run/machine/kubelet",
                    f"--hostname-override={node.name}",
                    f"--node-ip={address}",
                    "--v=1",
                ),
                needs=(CONTAINERD_SOCKET,),
            ),
            Service("kube-proxy", (str(programs["kube-proxy"]), "--config=/run/machine/kube-proxy.json")),
        ),
    )


def _kubelet(layout: Layout, node: Node, authority: pki.Pair, serving: pki.Pair) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.instance}/{node.name}",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "address": str(layout.addresses.node(node.index)),
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        # Lowering it needs a capability that a container's root often lacks.
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.cert)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.cert),
        "tlsPrivateKeyFile": str(serving.key),
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(layout.addresses.dns_service)],
        "resolvConf": "/run/machine/resolv.conf",
        "volumePluginDir": "/run/machine/volume-plugins",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "nodeLeaseDurationSeconds": NODE_GRACE * 2 // 3,
        "serializeImagePulls": False,
        "registerNode": True,
        "maxPods": 110,
    }


def _kube_proxy(layout: Layout, node: Node, kubeconfig: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node.name,
        "clusterCIDR": str(layout.addresses.pods),
        "healthzBindAddress": "",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The connection tracking tables' sizes are the host's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "200ms", "syncPeriod": "1m"},
    }


def _cni(subnet: str, mtu: int) -> str:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "mtu": mtu,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/machine/ipam",
            "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]})


def _containerd(sandbox_image: str) -> str:
    # Containers keep the score that they may have: lowering it needs a capability that is often missing.
    # containerd confines by AppArmor where the kernel has it and apparmor_parser is installed, as on any node.
    directories = json.dumps([path for path in CNI_DIRECTORIES if Path(path).is_dir()])
    return f"""\
version = 3
root = "/run/machine/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{sandbox_image}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "/run/machine/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = {directories}
    conf_dir = "/run/machine/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "runc"
      SystemdCgroup = false
"""
