"""The two registries of a cluster, and how containerd and BuildKit are told about them."""

import json
from pathlib import Path

from tests.cluster import pki
from tests.cluster.files import write_atomic
from tests.cluster.layout import REGISTRY_PORT, SECURE_PORT, SECURE_USER, Layout
from tests.cluster.spec import Mount, Service

OPEN_STORAGE = "registry"
SECURE_STORAGE = "secure-registry"
# What is pulled from these by name comes from the open registry instead.
MIRRORED = ("docker.io", "registry.k8s.io")


def password(layout: Layout) -> str:
    """Returns the password of the secure registry's one user."""
    return pki.password(layout.pki / "registry-password")


def authority(layout: Layout) -> pki.Authority:
    """Returns the CA of the secure registry, which is not the cluster's."""
    return pki.Authority(layout.pki, "registry-ca")


def files(layout: Layout) -> dict[str, str]:
    """Returns the registries' configurations, by path below /run/machine."""
    host = layout.secure_registry.partition(":")[0]
    pair = authority(layout).issue("registry", common_name=host, hosts=(host, str(layout.addresses.control)))
    htpasswd = layout.pki / "htpasswd"
    if not htpasswd.exists():
        write_atomic(htpasswd, pki.htpasswd_line(SECURE_USER, password(layout)).encode(), mode=0o600)
    log = {"level": "warn", "accesslog": {"disabled": True}}
    plain = {
        "version": "0.1",
        "log": log,
        "storage": {
            "filesystem": {"rootdirectory": f"/run/machine/{OPEN_STORAGE}"},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"{layout.addresses.control}:{REGISTRY_PORT}"},
    }
    secure = {
        "version": "0.1",
        "log": log,
        "storage": {
            "filesystem": {"rootdirectory": f"/run/machine/{SECURE_STORAGE}"},
            "delete": {"enabled": True},
        },
        "http": {
            "addr": f"{layout.addresses.control}:{SECURE_PORT}",
            "tls": {"certificate": str(pair.cert), "key": str(pair.key)},
        },
        "auth": {"htpasswd": {"realm": "cluster", "path": str(htpasswd)}},
    }
    # JSON is YAML.
    return {"registry.yaml": json.dumps(plain), "secure-registry.yaml": json.dumps(secure)}


def mounts(directory: Path) -> tuple[Mount, ...]:
    """Returns the mounts of the registries' storage, kept in the machine's state `directory`."""
    return tuple(Mount(str(directory / name), f"/run/machine/{name}") for name in (OPEN_STORAGE, SECURE_STORAGE))


def services(program: Path) -> tuple[Service, ...]:
    """Returns both registries as services of a machine."""
    # Without this distribution sends traces to a collector on localhost, again and again.
    env = {"OTEL_TRACES_EXPORTER": "none"}
    return tuple(
        Service(name, (str(program), "serve", f"/run/machine/{name}.yaml"), env=env)
        for name in (OPEN_STORAGE, SECURE_STORAGE)
    )


def containerd_hosts(layout: Layout) -> dict[str, str]:
    """Returns containerd's hosts.toml files, by path below its `config_path`.

    The format is in containerd's docs/hosts.md.
    """
    plain = f'server = "http://{layout.registry}"\n'
    secure = f'server = "https://{layout.secure_registry}"\nca = "{authority(layout).pair.cert}"\n'
    return {
        **{f"{name}/hosts.toml": plain for name in (*MIRRORED, layout.registry)},
        f"{layout.secure_registry}/hosts.toml": secure,
    }


def buildkitd_toml(layout: Layout) -> str:
    """Returns the registry part of a buildkitd.toml that makes builds find the same images as the nodes do.

    The secure registry is left out: its CA is a file whose path is the builder's own affair.
    """
    mirrors = "".join(f'[registry."{name}"]\n  mirrors = ["{layout.registry}"]\n' for name in MIRRORED)
    return f'{mirrors}[registry."{layout.registry}"]\n  http = true\n'
