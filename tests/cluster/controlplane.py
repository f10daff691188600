"""The machine `control`: etcd, API server, controller manager, scheduler, CoreDNS and the registries."""

from collections.abc import Mapping
from pathlib import Path

from tests.cluster import pki, registry
from tests.cluster.files import write_atomic
from tests.cluster.layout import API_PORT, Layout
from tests.cluster.spec import MachineSpec, Mount, Service

NAME = "control"
ETCD = "http://127.0.0.1:2379"
# A node that stopped is NotReady after this many seconds; kubelets renew their leases four times as often.
NODE_GRACE = 24
AUDITED = "mab-audited"
"""Namespace: what its ServiceAccounts ask the API server for is in AUDIT_LOG, one line a request; nothing else is."""
AUDIT_LOG = "/run/machine/audit.log"
_AUDIT_POLICY = f"""apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts:{AUDITED}"]
- level: None
"""


def spec(layout: Layout, programs: Mapping[str, Path], *, mtu: int, resolver: str) -> MachineSpec:
    """Returns the control machine; issues the certificates that it needs.

    Args:
        layout: of the instance.
        programs: path by name.
        mtu: of its link, bytes.
        resolver: address of the DNS server that is asked for names outside the cluster.
    """
    addresses = layout.addresses
    directory = layout.machines / NAME
    authority = pki.Authority(layout.pki, "ca")
    hosts = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    serving = authority.issue(
        "apiserver",
        common_name="kube-apiserver",
        hosts=(*hosts, "localhost", "127.0.0.1", str(addresses.api_service), str(addresses.control)),
    )
    kubelet_client = authority.issue(
        "kubelet-client", common_name="kube-apiserver-kubelet-client", organization="system:masters"
    )
    signing = pki.signing_key(layout.pki / "service-accounts.key")
    apiserver = (
        f"--etcd-servers={ETCD}",
        f"--bind-address={addresses.control}",
        f"--advertise-address={addresses.control}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={addresses.services}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # No kube-proxy runs here: webhooks that are Services are reached at their pods.
        "--enable-aggregator-routing",
        f"--client-ca-file={authority.pair.cert}",
        f"--tls-cert-file={serving.cert}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-certificate-authority={authority.pair.cert}",
        f"--kubelet-client-certificate={kubelet_client.cert}",
        f"--kubelet-client-key={kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={signing}",
        f"--service-account-signing-key-file={signing}",
        "--audit-policy-file=/run/machine/audit.yaml",
        f"--audit-log-path={AUDIT_LOG}",
        "--profiling=false",
        "--v=1",
    )
    controllers = (
        *_as_user("controller-manager", layout),
        f"--service-account-private-key-file={signing}",
        f"--root-ca-file={authority.pair.cert}",
        f"--cluster-signing-cert-file={authority.pair.cert}",
        f"--cluster-signing-key-file={authority.pair.key}",
        "--use-service-account-credentials",
        f"--node-monitor-grace-period={NODE_GRACE}s",
        "--profiling=false",
    )
    etcd = (
        "--data-dir=/run/machine/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        # What is lost with the host's power is made again; waiting for the disk is not worth it here.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    dns = user_kubeconfig(layout, "coredns", common_name="system:coredns")
    arguments = {
        "etcd": etcd,
        "kube-apiserver": apiserver,
        "kube-controller-manager": controllers,
        "kube-scheduler": _as_user("scheduler", layout),
        "coredns": ("-conf", "/run/machine/Corefile"),
    }
    return MachineSpec(
        name=NAME,
        address=f"{addresses.control}/{addresses.machines.prefixlen}",
        gateway=str(addresses.host),
        mtu=mtu,
        files={**registry.files(layout), "Corefile": _corefile(layout, dns, resolver), "audit.yaml": _AUDIT_POLICY},
        directories=("etcd", registry.OPEN_STORAGE, registry.SECURE_STORAGE),
        mounts=(Mount(str(directory / "etcd"), "/run/machine/etcd"), *registry.mounts(directory)),
        sysctls={},
        services=(
            *(Service(name, (str(programs[name]), *words)) for name, words in arguments.items()),
            *registry.services(programs["registry"]),
        ),
    )


def user_kubeconfig(layout: Layout, name: str, *, common_name: str, organization: str = "") -> Path:
    """Returns the path of a kubeconfig for a user of the API, made now unless it exists."""
    path = layout.pki / f"{name}.kubeconfig"
    if not path.exists():
        authority = pki.Authority(layout.pki, "ca")
        pair = authority.issue(name, common_name=common_name, organization=organization)
        write_atomic(path, pki.kubeconfig(layout.api_server, authority.pair, pair), mode=0o600)
    return path


def _as_user(component: str, layout: Layout) -> tuple[str, ...]:
    path = user_kubeconfig(layout, component, common_name=f"system:kube-{component}")
    return (
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    )


def _corefile(layout: Layout, kubeconfig: Path, resolver: str) -> str:
    address = layout.addresses.control
    return f""".:53 {{
    bind {address}
    errors
    hosts {{
        {layout.hosts_line.partition(" #")[0]}
        fallthrough
    }}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
        fallthrough in-addr.arpa
    }}
    forward . {resolver}
    cache 5
}}
"""
