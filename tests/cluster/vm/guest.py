"""The guest: what it boots from, and its QEMU process."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster import cgroups, network, node
from tests.cluster.build import Built
from tests.cluster.errors import ClusterError
from tests.cluster.files import write_atomic
from tests.cluster.kubectl import Kubectl, all_ready
from tests.cluster.layout import CHECKOUT, MAX_NODES_PER_ARCH, Arch, Layout, Node
from tests.cluster.processes import Process, run
from tests.cluster.spec import MachineSpec, Service
from tests.cluster.vm import image
from tests.cluster.vm.image import SHARE, Image

HOST_PACKAGES = ("qemu-system-x86",)
ACCELERATOR = os.environ.get("MAB_VM_ACCELERATOR", "tcg,thread=multi,tb-size=1024")
"""What QEMU runs the guest with. Not KVM unless it is asked for: where it is there, it need not work."""
LABEL = "cluster.test/app-armor"
"""Of nodes whose kernel has AppArmor: true. Tests go by it; the product does not know it."""
TAINT = "cluster.test/slow=true:PreferNoSchedule"
"""Pods that may run anywhere do so on the other nodes."""
READY_SECONDS = 600.0
_SPEC = "spec.json"
_READ_ONLY = "trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144"


@dataclass(frozen=True)
class Guest(Node):
    """The last node of its architecture in the address plan, with a name that says what it is."""

    @property
    def name(self) -> str:
        return "n-vm"


GUEST = Guest(Arch.AMD64, MAX_NODES_PER_ARCH)


def spec(layout: Layout, built: Built, *, mtu: int) -> MachineSpec:
    """Return the machine of the node: as the others are, but that it imports the sandbox image by itself."""
    machine = node.spec(layout, GUEST, built.programs, mtu=mtu, sandbox_image=built.images.pause_reference)
    ctr = (str(built.programs["ctr"]), "--address", node.CONTAINERD_SOCKET, "--namespace", "k8s.io")
    importing = shlex.join([*ctr, "images", "import", "--local", str(built.images.pause_archive)])
    sandbox = ("/bin/sh", "-c", f"{importing} && exec sleep infinity")
    service = Service("sandbox-image", sandbox, needs=(node.CONTAINERD_SOCKET,))
    return replace(machine, services=(*machine.services, service))


def boot_script(layout: Layout, machine: MachineSpec, shares: Mapping[str, Path]) -> str:
    """Return what the guest runs first: mounts, the distribution's own profiles, and then `inside`. Pure."""
    lines = [
        "set -ex",
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root",
        "mount -t securityfs securityfs /sys/kernel/security",
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        "mkdir -p /dev/shm /dev/mqueue",
        "mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        "mount -t mqueue mqueue /dev/mqueue",
        *(f"mkdir -p {path} && mount -t 9p -o {_READ_ONLY} {tag} {path}" for tag, path in shares.items()),
        *(f"mkdir -p {layout.machines}/{machine.name}/{name}" for name in machine.directories),
        # As Debian does when it boots. That of runc is the one under which it stops containers.
        "apparmor_parser --replace --jobs=2 /etc/apparmor.d",
        f"cd {CHECKOUT}",
        f"exec python3 -m tests.cluster.vm.inside /{SHARE} {layout.instance}",
    ]
    return "\n".join([*lines, ""])


def command(disk: Image, directory: Path, shares: Mapping[str, Path], tap: str) -> tuple[str, ...]:
    """Return QEMU's command line; the guest writes to no file of this machine but those in `directory`. Pure.

    What it writes to its disk is in a file without a name (`snapshot=on`), in the folder that `TMPDIR` names.
    """
    options = "security_model=none,multidevs=remap"
    folders = [f"local,path={path},mount_tag={tag},{options},readonly=on" for tag, path in shares.items()]
    folders.append(f"local,path={directory},mount_tag={SHARE},{options}")
    return (
        *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"),
        # Go's programs use what AVX there is, which is slow to emulate: this processor has none.
        *("-accel", ACCELERATOR, "-cpu", "Westmere", "-smp", "2", "-m", "6G"),
        *("-kernel", str(disk.kernel), "-initrd", str(disk.initrd), "-append", image.KERNEL_ARGUMENTS),
        *("-serial", f"file:{directory}/console.log"),
        *("-drive", f"file={disk.disk},format=raw,if=virtio,cache=unsafe,snapshot=on"),
        *("-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *(word for folder in folders for word in ("-virtfs", folder)),
    )


def start(layout: Layout, built: Built, disk: Image, cache: Path, kubectl: Kubectl) -> None:
    """Boot the guest, anew where it runs, and return once its node is Ready.

    Raises:
        ClusterError: where it does not come up.
    """
    stop(layout, kubectl)
    mtu, directory = network.uplink().mtu, layout.vm
    if directory.exists():
        shutil.rmtree(directory)  # the logs of the last one
    machine = spec(layout, built, mtu=mtu)
    shares = {"cache": cache, "pki": layout.pki, "code": CHECKOUT / "tests" / "cluster"}
    write_atomic(directory / _SPEC, json.dumps(machine.to_json()).encode(), mode=0o600)
    write_atomic(directory / "boot", boot_script(layout, machine, shares).encode())
    _connect(layout, mtu)
    # By them, `stop` finds its processes.
    groups = cgroups.create(layout.instance, GUEST.name)
    with (directory / "qemu.log").open("ab") as log:
        qemu = subprocess.Popen(
            command(disk, directory, shares, _tap(layout)),
            env={**os.environ, "TMPDIR": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for group in groups:
            (group / "cgroup.procs").write_text(str(qemu.pid))
        _await_ready(qemu, directory, kubectl)
    except BaseException:
        qemu.kill()
        qemu.wait()
        raise


def _await_ready(qemu: subprocess.Popen[bytes], directory: Path, kubectl: Kubectl) -> None:
    def ready() -> bool:
        if qemu.poll() is not None:
            raise ClusterError(f"QEMU ended with {qemu.returncode}: see {directory}/console.log and qemu.log")
        return all_ready(kubectl.nodes(), [GUEST.name])

    kubectl.wait(f"node {GUEST.name} Ready (see {directory}/console.log)", ready, timeout=READY_SECONDS)
    kubectl("label", "--overwrite", "node", GUEST.name, f"{LABEL}=true")
    kubectl("taint", "--overwrite", "node", GUEST.name, TAINT)


def stop(layout: Layout, kubectl: Kubectl) -> None:
    """Power the guest off and take its node out of the cluster; nothing to do where there is none. Its logs stay."""
    for pid in cgroups.processes(layout.instance, GUEST.name):
        if process := Process.of(pid):
            process.kill()
    cgroups.remove(layout.instance, GUEST.name)
    network.delete_link(_tap(layout))
    if (layout.vm / _SPEC).exists():
        kubectl("delete", "node", GUEST.name, "--ignore-not-found")
        for path in layout.vm.iterdir():
            if path.suffix != ".log":
                path.unlink(missing_ok=True)


def _connect(layout: Layout, mtu: int) -> None:
    address, tap = layout.addresses.node(GUEST.index), _tap(layout)
    network.ensure(layout, {address: layout.addresses.node_pods(GUEST.index)})
    run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
    run(["ip", "link", "set", tap, "mtu", str(mtu), "master", layout.bridge, "up"])


def _tap(layout: Layout) -> str:
    # As the other nodes' links, so that it goes with the cluster.
    return layout.veth(layout.addresses.node(GUEST.index))
