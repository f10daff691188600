"""A user of the registry, for this machine and for the builders."""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import ReleaseError

SECRET: Final = "multiarchbuild-registry"


@dataclass(frozen=True, slots=True)
class Login:
    """Who pushes."""

    registry: str
    user: str
    password: str

    @classmethod
    def find(cls, environment: Mapping[str, str], registry: str) -> "Login | None":
        """Return the user that REGISTRY_USER and REGISTRY_PASSWORD name, None where neither is set.

        Raises:
            ReleaseError: one of them is missing.
        """
        user, password = environment.get("REGISTRY_USER", ""), environment.get("REGISTRY_PASSWORD", "")
        if not user and not password:
            return None
        if not user or not password:
            raise ReleaseError("set both REGISTRY_USER and REGISTRY_PASSWORD, or neither")
        return cls(registry.partition("/")[0], user, password)

    @property
    def config(self) -> str:
        """A ~/.docker/config.json with this user."""
        auth = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return json.dumps({"auths": {self.registry: {"auth": auth}}})

    def secret(self, namespace: str) -> dict[str, Any]:
        """Return the Secret with which builders pull and push."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": self.config},
        }

    def use(self, folder: Path) -> None:
        """Make the programs that this process starts, and the clients in it, log in with the config in `folder`."""
        file = folder / "config.json"
        file.touch(mode=0o600)
        file.write_text(self.config, encoding="utf-8")
        os.environ["DOCKER_CONFIG"] = str(folder)
        os.environ["REGISTRY_AUTH_FILE"] = str(file)  # which the command line reads first
        os.environ["HELM_REGISTRY_CONFIG"] = str(file)
