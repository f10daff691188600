"""`cluster.json`: what tests and demos may know about a running cluster; `values.yaml`: what the chart has to know."""

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import registry
from tests.cluster.files import write_atomic
from tests.cluster.layout import SECURE_USER, Layout


@dataclass(frozen=True)
class SecureRegistry:
    """A registry that demands a user, over TLS by a CA of its own.

    Attributes:
        host: name and port.
        user: who may pull and push.
        password: of the user.
        ca: path of the CA's certificate (PEM).
    """

    host: str
    user: str
    password: str
    ca: str


@dataclass(frozen=True)
class Facts:
    """What is known of a cluster.

    Attributes:
        instance: name of the local instance, "" for a cluster that this tool did not bring up.
        kubeconfig: path.
        bin: directory of kubectl, helm, crane and buildctl; "" means PATH.
        registry: name and port (or a path in it) of a registry that needs no password.
        registry_insecure: whether that registry speaks plain HTTP.
        secure_registry: the one with password and CA, where there is one.
        buildkitd_toml: registry part of a buildkitd.toml for this cluster.
        images: index digest by repository:tag, of what the registry had from the start.
        registry_of_nodes: what nodes call that registry where they do not call it as pods do, else "".
        registry_forwarded: whether the host reaches it by a forwarded port only.
    """

    instance: str
    kubeconfig: str
    bin: str
    registry: str
    registry_insecure: bool
    secure_registry: SecureRegistry | None
    buildkitd_toml: str
    images: dict[str, str]
    registry_of_nodes: str = ""
    registry_forwarded: bool = False


def write(layout: Layout, images: dict[str, str]) -> None:
    """Writes the facts of a local instance: what does not change while it runs, so not its nodes."""
    ca = registry.authority(layout).pair.cert
    facts = Facts(
        instance=layout.instance,
        kubeconfig=str(layout.kubeconfig),
        bin=str(layout.bin),
        registry=layout.registry,
        registry_insecure=True,
        secure_registry=SecureRegistry(
            host=layout.secure_registry,
            user=SECURE_USER,
            password=registry.password(layout),
            ca=str(ca),
        ),
        buildkitd_toml=registry.buildkitd_toml(layout),
        images=images,
    )
    write_atomic(layout.facts, json.dumps(asdict(facts), indent=2).encode(), mode=0o600)
    policy = {"registries": registries(facts.buildkitd_toml), "caBundle": ca.read_text(encoding="utf-8")}
    write_atomic(layout.values, yaml.safe_dump({"policy": policy}, sort_keys=False).encode())


def registries(buildkitd_toml: str) -> list[dict[str, Any]]:
    """Returns the registry part of a buildkitd.toml as `registries` of the operator's policy."""
    entries: dict[str, dict[str, Any]] = tomllib.loads(buildkitd_toml).get("registry", {})
    return [
        {"host": host, "plainHttp": entry.get("http", False), "mirrors": entry.get("mirrors", [])}
        for host, entry in entries.items()
    ]


def read(path: Path) -> Facts:
    """Reads what `write` wrote; raises FileNotFoundError where there is no cluster."""
    value = json.loads(path.read_bytes())
    secure = value.pop("secure_registry")
    return Facts(**value, secure_registry=SecureRegistry(**secure) if secure else None)
