"""Which certificate authorities the programs of a step trust: the system's, and those of the operator's policy."""

import ssl
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from multiarchbuild.api import mounts as paths
from multiarchbuild.oci.names import canonical_host

from .mounts import Mounts


@cache
def ca_file(mounts: Mounts) -> str | None:
    """Return the path of a PEM file with what everything trusts, or None when the policy adds nothing."""
    own = mounts.at(paths.INPUTS) / paths.CA_FILE
    return _together(mounts, "ca.crt", [own]) if own.is_file() else None


def registry_cas(mounts: Mounts) -> dict[str, Path]:
    """Return the bundles with the CAs of single registries by their hosts, in their canonical form."""
    found = {
        canonical_host(registry.host): mounts.at(paths.INPUTS) / paths.REGISTRY_CA_FILE.format(number)
        for number, registry in enumerate(mounts.inputs.registries)
    }
    return {host: file for host, file in found.items() if file.is_file()}


@cache
def registry_ca_file(mounts: Mounts, *hosts: str) -> str | None:
    """Return such a file for the registries at `hosts`, which may have CAs of their own."""
    wanted = {canonical_host(host) for host in hosts}
    present = [file for host, file in registry_cas(mounts).items() if host in wanted]
    if not present:
        return ca_file(mounts)
    for_all = mounts.at(paths.INPUTS) / paths.CA_FILE
    name = "-".join(["ca", *(file.name.removesuffix(".ca.crt") for file in present)]) + ".crt"
    return _together(mounts, name, [*([for_all] if for_all.is_file() else []), *present])


@cache
def signing_ca_file(mounts: Mounts) -> str | None:
    """Return such a file for who certifies signatures."""
    services = mounts.services
    own = services.keyless.ca_bundle if services.keyless else ""
    return _told(mounts, "ca-signing.crt", [services.ca_bundle, own])


@cache
def identity_ca_file(mounts: Mounts) -> str | None:
    """Return such a file for the providers of identities."""
    return _told(mounts, "ca-identities.crt", [mounts.services.ca_bundle])


def _told(mounts: Mounts, name: str, bundles: list[str]) -> str | None:
    """Return such a file of what the pod's own arguments have: nothing of it is from the ConfigMap."""
    found = [bundle.encode() for bundle in bundles if bundle]
    return _write(mounts, name, found) if found else None


def _together(mounts: Mounts, name: str, bundles: list[Path]) -> str:
    return _write(mounts, name, [bundle.read_bytes() for bundle in bundles])


def _write(mounts: Mounts, name: str, bundles: list[bytes]) -> str:
    system = ssl.get_default_verify_paths().cafile
    parts = [Path(system).read_bytes()] if system else []
    # Renamed into place: another thread may want the same file.
    with NamedTemporaryFile(dir=mounts.work, delete=False) as file:
        file.write(b"\n".join([*parts, *bundles]))
    return str(Path(file.name).rename(mounts.work / name))
