"""What is in a registry, by crane: bytes as they are, never as a library would write them again."""

import base64
import io
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.target import CommandError, Target
from tests.cluster.facts import SecureRegistry

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Images:
    """The registries of a cluster, as its tests read them."""

    target: Target

    def raw(self, ref: str) -> bytes:
        """Return the manifest or index `ref`, byte by byte."""
        return self._crane("manifest", ref)

    def manifest(self, ref: str) -> dict[str, Any]:
        """Return the manifest or index `ref`."""
        return dict(json.loads(self.raw(ref)))

    def blob(self, ref: str) -> bytes:
        """Return the blob that `ref` names by its digest."""
        return self._crane("blob", ref)

    def digest(self, ref: str) -> str:
        """Return the digest of `ref`."""
        return self._crane("digest", ref).decode().strip()

    def exists(self, ref: str) -> bool:
        """Return whether `ref` resolves."""
        try:
            self.digest(ref)
        except CommandError:
            return False
        return True

    def config(self, ref: str) -> dict[str, Any]:
        """Return the config of the image `ref`."""
        return dict(json.loads(self._crane("config", ref)))

    def file(self, ref: str, path: str) -> str:
        """Return the content of a file of the image `ref` (of one platform)."""
        with tarfile.open(fileobj=io.BytesIO(self._crane("export", ref, "-"))) as layers:
            content = layers.extractfile(path.lstrip("/"))
            assert content is not None
            return content.read().decode()

    def copy(self, source: str, to: str) -> None:
        """Copy an image with all its platforms."""
        self._crane("copy", source, to)

    def _crane(self, command: str, *arguments: str) -> bytes:
        facts = self.target.facts
        insecure = ["--insecure"] if facts.registry_insecure else []
        argv = ["crane", command, *insecure, *arguments]
        with tempfile.TemporaryDirectory() as folder:
            environment = self.target.environment
            if secure := facts.secure_registry:
                environment |= {"DOCKER_CONFIG": folder, "SSL_CERT_FILE": secure.ca}
                Path(folder, "config.json").write_text(docker_config(secure), encoding="utf-8")
            done = subprocess.run(argv, env=environment, capture_output=True, check=False, timeout=120)
        if done.returncode:
            raise CommandError(f"{' '.join(argv)} failed: {done.stderr.decode()}")
        return done.stdout


def docker_config(registry: SecureRegistry, password: str | None = None) -> str:
    """Return a ~/.docker/config.json for `registry`, with another password where one is given."""
    user = f"{registry.user}:{registry.password if password is None else password}"
    return json.dumps({"auths": {registry.host: {"auth": base64.b64encode(user.encode()).decode()}}})
