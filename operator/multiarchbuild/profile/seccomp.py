"""The seccomp profile of rootless builders: what runtimes allow by default, and what BuildKit needs to run containers.

A file below the kubelet's folder `seccomp` is an OCI profile, which knows no capabilities: what a runtime allows for
one of them (`chroot`) is allowed here. It is of the node's architecture, since libseccomp mixes no byte orders.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
"""

import json
from importlib.resources import files
from typing import Any, Final

from multiarchbuild.api.foreign import parse_object

NEEDED: Final = (
    "chroot",
    "clone",
    "fsconfig",
    "fsmount",
    "fsopen",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "sethostname",
    "setns",
    "umount2",
    "unshare",
)
"""What rootlesskit, BuildKit and runc call beyond the default: namespaces, mounts in them, a keyring of a container.

Seen in builds, with SCMP_ACT_LOG: clone, keyctl, mount, pivot_root, sethostname, umount2, unshare. Besides them chroot,
which a RUN has by BuildKit's own default, setns, by which runc joins a network, and the other spelling of mount, which
later versions of runc prefer. The kernel asks for capabilities over the caller's own namespaces for each of them, and
the caller has them in the user namespace that it made, and nowhere else. Not here, among others: bpf, perf_event_open,
module loading, kexec, reboot, io_uring, userfaultfd, open_by_handle_at, quotactl, swapon.
"""

ARCHITECTURES: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64",),
}
"""Architectures of programs that a kernel runs, by its machine (`uname -m`)."""


def profile(machine: str) -> dict[str, Any]:
    """Return the OCI profile for nodes of this machine."""
    default = parse_object(files(__package__).joinpath("default.json").read_text(encoding="ascii"), "default.json")
    conditional = [
        {"names": [rule["name"]], "action": "SCMP_ACT_ALLOW", "args": rule["args"]} for rule in default["conditional"]
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": list(ARCHITECTURES.get(machine, ())),
        "syscalls": [
            {"names": sorted({*default["names"], *NEEDED}), "action": "SCMP_ACT_ALLOW"},
            *conditional,
            # Not EPERM: C libraries fall back to clone then, as they do with the default.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    }


def text(machine: str) -> str:
    """Return the file."""
    return json.dumps(profile(machine), indent=1) + "\n"
