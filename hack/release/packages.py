"""Which Debian packages an image holds, in which versions: what its layers have recorded."""

import hashlib
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Final

from multiarchbuild.api.platforms import Platform
from multiarchbuild.cli.docker import Logins
from multiarchbuild.cli.registry import client
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.index import find_image

from .errors import ReleaseError

FILE: Final = "packages.txt"
_STATUS: Final = "var/lib/dpkg/status"
_UNPACKED: Final = "var/lib/dpkg/status.d/"
"""Of packages that were unpacked without being installed, a file each, where scanners look for them too."""
_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


def text(images: Mapping[str, tuple[str, str]], platforms: Iterable[str], *, plain_http: bool) -> str:
    """Return a line `IMAGE PLATFORM PACKAGE VERSION` for each package of each image, sorted.

    Args:
        images: repository and digest of an index, by the name of the image.
        platforms: which images of the index are read.
        plain_http: whether the registry has no TLS.

    Raises:
        ReleaseError: an image cannot be read, or has no record of its packages.
    """
    lines = []
    for name, (repository, digest) in images.items():
        registry = client(repository, Logins.load(), plain_http=plain_http)
        for platform in platforms:
            try:
                found = of_image(registry, digest, platform)
            except (RegistryError, ValueError, tarfile.TarError) as error:
                raise ReleaseError(f"packages of {repository}@{digest} ({platform}): {error}") from error
            lines += [f"{name} {platform} {package} {version}\n" for package, version in found.items()]
    return "".join(sorted(lines))


def of_image(registry: Client, index: str, platform: str) -> dict[str, str]:
    """Return the versions by package of one image of an index.

    Raises:
        RegistryError, TarError: the image cannot be read.
        ValueError: it is not as expected.
    """
    descriptor = find_image(registry.get(index), Platform.parse(platform)).descriptor
    layers = registry.get(str(descriptor["digest"])).content["layers"]
    records: dict[str, str] = {}
    for layer in layers:  # a file of a later layer replaces that of an earlier one
        if layer["mediaType"] != _GZIP:
            raise ValueError(f"a layer is {layer['mediaType']}, not {_GZIP}")
        with _downloaded(registry, str(layer["digest"])) as file:
            records |= recorded(file)
    if _STATUS not in records:
        raise ValueError(f"no layer has /{_STATUS}")
    return dict(pair for record in records.values() for pair in versions(record))


def recorded(layer: IO[bytes]) -> dict[str, str]:
    """Return the files of a layer (tar, gzip) in which dpkg records packages, by their paths."""
    with tarfile.open(fileobj=layer, mode="r:gz") as tar:
        return {
            path: file.read().decode()
            for member in tar
            if (path := member.name.removeprefix("./")) == _STATUS or path.startswith(_UNPACKED)
            if (file := tar.extractfile(member)) is not None
        }


def versions(record: str) -> Iterator[tuple[str, str]]:
    """Yield package and version of each installed package in a file of dpkg's, as deb822(5) describes it.

    A file of one package that was only unpacked has no field `Status`.
    """
    for stanza in record.split("\n\n"):
        lines = (line.partition(": ")[::2] for line in stanza.splitlines() if not line.startswith(" "))
        fields = {name: value.strip() for name, value in lines}
        if "Package" in fields and fields.get("Status", "install ok installed") == "install ok installed":
            yield fields["Package"], fields["Version"]


def _downloaded(registry: Client, digest: str) -> IO[bytes]:
    file, checksum = tempfile.TemporaryFile(), hashlib.sha256()  # noqa: SIM115 - the caller closes it
    for chunk in registry.blob(digest):
        file.write(chunk)
        checksum.update(chunk)
    if f"sha256:{checksum.hexdigest()}" != digest:
        file.close()
        raise ValueError(f"the registry sent other bytes than the layer {digest}")
    file.seek(0)
    return file
