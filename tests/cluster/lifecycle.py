"""Bring an instance to what is wanted, from whatever it is now; say what it is; take it down."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import addons, cgroups, controlplane, facts, host, kwok, network, node, pki
from tests.cluster.build import Built
from tests.cluster.errors import ClusterError
from tests.cluster.files import write_atomic
from tests.cluster.kubectl import Kubectl, all_ready
from tests.cluster.layout import OWN_INSTANCE, OWN_NETWORK, STATE, Arch, Layout, Node
from tests.cluster.layout import layout as make_layout
from tests.cluster.locks import locked
from tests.cluster.machine import Machine
from tests.cluster.network import Uplink
from tests.cluster.processes import Process, run
from tests.cluster.spec import MachineSpec

API_TIMEOUT = 300.0
NODE_TIMEOUT = 300.0
NODE_PATIENCE = 120.0
"""Seconds after which a node that is not Ready is started again: they take ten."""
ETCD_STARTS = 5
"""A slow machine takes long; where etcd ends each time it is started, its state is broken, and waiting is of no use."""
USER_PROGRAMS = ("kubectl", "helm", "crane", "buildctl")
DEFAULT_NODES = (Node(Arch.AMD64, 1), Node(Arch.ARM64, 1))


@dataclass(frozen=True)
class Wanted:
    """What a cluster should consist of.

    Attributes:
        nodes: real nodes.
        labels: by node name, key and value.
        kwok: number of simulated nodes.
    """

    nodes: tuple[Node, ...] = DEFAULT_NODES
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kwok: int = 0


def stored(layout: Layout) -> Wanted | None:
    """Returns what the instance was last brought up as, None where it was not."""
    try:
        value = json.loads(layout.desired.read_bytes())
    except FileNotFoundError:
        return None
    nodes = tuple(Node(Arch(arch), ordinal) for arch, ordinal in value["nodes"])
    return Wanted(nodes, value["labels"], value["kwok"])


def find(*, instance: str = OWN_INSTANCE, network: str = "", state: Path | None = None) -> Layout:
    """Returns the layout of an instance, with the network that it has where it exists.

    Raises:
        ClusterError: where a parameter cannot be used, or is another than that of the existing instance.
    """
    found = make_layout(instance=instance, network=network or OWN_NETWORK, state=state)
    if not found.desired.exists():
        return found
    has = json.loads(found.desired.read_bytes())["network"]
    if network and network != has:
        raise ClusterError(f"cluster {instance} has network {has}, not {network}: take it down first")
    return make_layout(instance=instance, network=has, state=state)


def others() -> tuple[Layout, ...]:
    """Returns the layouts of this checkout's instances beside its own."""
    folder = STATE / "instances"
    return tuple(find(instance=path.name) for path in sorted(folder.iterdir())) if folder.is_dir() else ()


def up(layout: Layout, wanted: Wanted, built: Built) -> None:
    """Brings the instance up, or repairs or changes the running one, until every wanted node is Ready.

    Raises:
        ClusterError: where something is in the way.
    """
    with locked(layout.state / "lock", waiting=f"waiting for another command that works on cluster {layout.instance}"):
        if _owned_by_another(layout):
            _remove_traces(layout)
        network.check(layout)
        uplink = network.uplink()
        existed = layout.desired.exists()
        try:
            _converge(layout, wanted, built, uplink)
        except ClusterError as error:
            if not existed:
                raise
            print(f"the cluster cannot be repaired ({error}): starting over", flush=True)
            _down(layout)
            _converge(layout, wanted, built, uplink)


def _converge(layout: Layout, wanted: Wanted, built: Built, uplink: Uplink) -> None:
    addresses = layout.addresses
    _write_desired(layout, wanted)
    host.acquire(layout)
    network.ensure(layout, {addresses.node(n.index): addresses.node_pods(n.index) for n in wanted.nodes})
    kubectl = _prepare_client(layout, built)
    specs = {
        controlplane.NAME: controlplane.spec(layout, built.programs, mtu=uplink.mtu, resolver=uplink.resolver),
        **{
            n.name: node.spec(
                layout,
                n,
                built.programs,
                mtu=uplink.mtu,
                sandbox_image=built.images.pause_reference,
            )
            for n in wanted.nodes
        },
    }
    if wanted.kwok:
        specs[kwok.NAME] = kwok.spec(layout, built.programs, mtu=uplink.mtu)
    _fill_registry(layout, built)
    gone = [machine for machine in machines(layout) if machine.name not in specs]
    for machine in gone:
        machine.power_off()
    with ThreadPoolExecutor() as pool:
        # list() so that errors surface.
        list(pool.map(lambda item: _ensure_running(Machine(layout, item[0]), item[1]), specs.items()))
        imports = pool.map(lambda n: _import_sandbox_image(Machine(layout, n.name), built), wanted.nodes)
        kubectl.wait("API server ready", _api_ready(layout, kubectl), timeout=API_TIMEOUT)
        _apply_addons(layout, kubectl)
        list(imports)
    for machine in gone:
        kubectl("delete", "node", machine.name, "--ignore-not-found")
        machine.delete()
    kwok.ensure_nodes(kubectl, wanted.kwok)
    names = [n.name for n in wanted.nodes]
    _await_nodes(layout, kubectl, {name: specs[name] for name in names})
    # Not by kubelet's flag: another label must not restart a node that has pods.
    for name, labels in wanted.labels.items():
        kubectl("label", "--overwrite", "node", name, *(f"{key}={value}" for key, value in labels.items()))
    facts.write(layout, dict(built.images.digests))


def _await_nodes(layout: Layout, kubectl: Kubectl, specs: Mapping[str, MachineSpec]) -> None:
    """Returns once all nodes are Ready; those that are not in time are started again, once.

    An emulated kubelet or containerd hangs now and then as it starts, with all its threads asleep.
    """
    what = f"nodes {' '.join(specs)} Ready"
    try:
        kubectl.wait(what, lambda: all_ready(kubectl.nodes(), list(specs)), timeout=NODE_PATIENCE)
    except ClusterError as error:
        print(f"{error}: starting again those that are not", flush=True)
        found = kubectl.nodes()
        for name, spec in specs.items():
            if not all_ready(found, [name]):
                machine = Machine(layout, name)
                machine.power_off()
                _ensure_running(machine, spec)
        kubectl.wait(what, lambda: all_ready(kubectl.nodes(), list(specs)), timeout=NODE_TIMEOUT)


def _api_ready(layout: Layout, kubectl: Kubectl) -> Callable[[], bool]:
    """Returns whether the API server is ready; asking it raises ClusterError where it never will be."""
    control = Machine(layout, controlplane.NAME)

    def starts() -> int:
        return int(control.services().get("etcd", {}).get("starts") or 0)

    before = starts()

    def ready() -> bool:
        if kubectl.ready():
            return True
        if starts() >= before + ETCD_STARTS:
            raise ClusterError(f"etcd ends again and again: see {control.directory}/etcd.log")
        return False

    return ready


def machines(layout: Layout) -> tuple[Machine, ...]:
    """Returns all machines that the instance has, running or not."""
    if not layout.machines.is_dir():
        return ()
    return tuple(Machine(layout, path.name) for path in sorted(layout.machines.iterdir()))


def start_node(layout: Layout, name: str) -> None:
    """Starts a node's machine that was stopped; nothing to do where it runs. Does not wait for Ready."""
    machine = Machine(layout, name)
    spec = machine.booted_spec()
    if spec is None:
        raise ClusterError(f"cluster {layout.instance} has no machine {name}")
    _ensure_running(machine, spec)


def stop_node(layout: Layout, name: str) -> None:
    """Stops a node's machine as a power cut would: no pod ends in order, the API server is not told."""
    Machine(layout, name).power_off()


def normalized(reference: str) -> str:
    """Returns an image reference with its registry and namespace, as containerd stores it. Pure."""
    first, slash, _ = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    return reference if any(mark in first for mark in ".:") or first == "localhost" else f"docker.io/{reference}"


def preload(layout: Layout, references: tuple[str, ...], built: Built) -> None:
    """Pulls images on all nodes, so that no test has to wait for them."""
    desired = stored(layout)
    nodes = desired.nodes if desired else ()

    def pull(job: tuple[Node, str]) -> None:
        machine = Machine(layout, job[0].name)
        run(
            [
                *_ctr(machine, built),
                *(
                    "images",
                    "pull",
                    "--local",
                    "--hosts-dir",
                    str(machine.path("/run/machine/certs.d")),
                    normalized(job[1]),
                ),
            ],
            timeout=600,
        )

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(pull, [(n, reference) for n in nodes for reference in references]))


def down(layout: Layout) -> None:
    """Takes the instance down, whatever is left of it, and removes its state.

    Raises:
        ClusterError: where something cannot be removed.
    """
    if not layout.state.exists() and not _left_behind(layout):
        return
    with locked(layout.state / "lock", waiting=f"waiting for another command that works on cluster {layout.instance}"):
        _down(layout)
        (layout.state / "lock").unlink(missing_ok=True)
    directory = layout.state
    while directory.is_relative_to(STATE) and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent


def _left_behind(layout: Layout) -> bool:
    return bool(cgroups.processes(layout.instance)) or network.owner(layout) is not None


def _owned_by_another(layout: Layout) -> bool:
    """Whether the instance's name is on the remains of another checkout's cluster.

    Raises ClusterError where that cluster is alive.
    """
    owner = network.owner(layout)
    if owner is None or owner == layout.state:
        return False
    if owner.exists() and cgroups.processes(layout.instance):
        raise ClusterError(
            f"a cluster named {layout.instance} runs from {owner}: take that down, or choose another name with "
            "--instance NAME --network A.B.0.0/16"
        )
    print(f"removing what is left of the cluster {layout.instance} of {owner}", flush=True)
    return True


def _down(layout: Layout) -> None:
    _owned_by_another(layout)
    for machine in machines(layout):
        machine.power_off()
    _remove_traces(layout)
    for path in (layout.machines, layout.vm, layout.pki, layout.bin):
        if path.exists():
            shutil.rmtree(path)
    for path in (layout.kubeconfig, layout.facts, layout.values, layout.state / "addons", layout.desired):
        path.unlink(missing_ok=True)


def _remove_traces(layout: Layout) -> None:
    for pid in cgroups.processes(layout.instance):
        if process := Process.of(pid):
            process.kill()
    network.remove(layout)
    host.release(layout)
    cgroups.remove(layout.instance)


def _write_desired(layout: Layout, wanted: Wanted) -> None:
    value = {
        "nodes": [[str(n.arch), n.ordinal] for n in wanted.nodes],
        "labels": wanted.labels,
        "kwok": wanted.kwok,
        "network": str(layout.addresses.network),
    }
    write_atomic(layout.desired, json.dumps(value).encode())


def _prepare_client(layout: Layout, built: Built) -> Kubectl:
    layout.bin.mkdir(parents=True, exist_ok=True)
    for name in USER_PROGRAMS:
        link = layout.bin / name
        if not link.is_symlink() or link.readlink() != built.programs[name]:
            link.unlink(missing_ok=True)
            link.symlink_to(built.programs[name])
    if not layout.kubeconfig.exists():
        authority = pki.Authority(layout.pki, "ca")
        pair = authority.issue("admin", common_name="admin", organization="system:masters")
        content = pki.kubeconfig(layout.api_server, authority.pair, pair)
        write_atomic(layout.kubeconfig, content, mode=0o600)
    return Kubectl(built.programs["kubectl"], layout.kubeconfig)


def _fill_registry(layout: Layout, built: Built) -> None:
    directory = layout.machines / controlplane.NAME
    stamp = directory / "images"
    wanted = str(built.images.root)
    if not stamp.exists() or stamp.read_text() != wanted:
        built.images.copy_to(directory / "registry")
        write_atomic(stamp, wanted.encode())


def _ensure_running(machine: Machine, spec: MachineSpec) -> None:
    if machine.process() is not None:
        if machine.booted_spec() == spec:
            return
        print(f"machine {machine.name}: restarting, its configuration changed", flush=True)
    machine.power_off()
    machine.boot(spec)


def _import_sandbox_image(machine: Machine, built: Built) -> None:
    ctr = _ctr(machine, built)
    deadline = time.monotonic() + API_TIMEOUT
    while not machine.path(node.CONTAINERD_SOCKET).exists():
        if time.monotonic() > deadline:
            raise ClusterError(f"containerd on {machine.name} did not start: see {machine.directory}/containerd.log")
        time.sleep(0.05)
    if built.images.pause_reference not in run([*ctr, "images", "list", "--quiet"]).split():
        run([*ctr, "images", "import", "--local", built.images.pause_archive])


def _ctr(machine: Machine, built: Built) -> tuple[str, ...]:
    socket = machine.path(node.CONTAINERD_SOCKET)
    return (str(built.programs["ctr"]), "--address", str(socket), "--namespace", "k8s.io")


def _apply_addons(layout: Layout, kubectl: Kubectl) -> None:
    manifests = addons.manifests(layout)
    stamp = layout.state / "addons"
    digest = hashlib.sha256(manifests.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
        write_atomic(stamp, digest.encode())
