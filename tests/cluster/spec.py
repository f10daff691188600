"""What a machine is made of: plain values, stored as JSON between the host's side and the machine's PID 1."""

from dataclasses import asdict, dataclass, field
from typing import Any

GO = b"go"


@dataclass(frozen=True)
class Mount:
    """One mount(8) in the machine's mount namespace."""

    source: str
    target: str
    kind: str = "bind"
    options: str = ""
    make_target: bool = True


@dataclass(frozen=True)
class Service:
    """A program that runs as long as the machine.

    Attributes:
        name: of the service and its log.
        argv: command with absolute program path.
        needs: paths (sockets) that must exist before it is started.
        env: set in addition to the machine's environment.
    """

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MachineSpec:
    """A machine: a set of namespaces that looks like a computer of its own to what runs in it.

    Attributes:
        name: also its host name.
        address: with prefix length, on the instance's bridge.
        gateway: the host's address there.
        mtu: of its link, bytes.
        files: content by path below /run/machine; made at boot.
        directories: of the machine that outlive it, below its state directory.
        mounts: in order, after /run became a fresh tmpfs.
        sysctls: path below /proc/sys to value, of its own namespaces only.
        services: in start order.
    """

    name: str
    address: str
    gateway: str
    mtu: int
    files: dict[str, str]
    directories: tuple[str, ...]
    mounts: tuple[Mount, ...]
    sysctls: dict[str, str]
    services: tuple[Service, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MachineSpec":
        """Raises TypeError or KeyError where `value` was written by another version of this tool."""
        return cls(
            **{
                **value,
                "directories": tuple(value["directories"]),
                "mounts": tuple(Mount(**mount) for mount in value["mounts"]),
                "services": tuple(
                    Service(
                        **{**service, "argv": tuple(service["argv"]), "needs": tuple(service["needs"])},
                    )
                    for service in value["services"]
                ),
            }
        )
