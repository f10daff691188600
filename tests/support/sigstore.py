"""Fulcio and a timestamp authority as pods of the cluster; Fulcio takes the tokens of its API server."""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.target import Target

from . import authorities
from .authorities import Authorities
from .judges import program
from .tenant import Tenant

PORT = 8080
_PROGRAMS = ("fulcio", "timestamps")
_FILES = "/authorities"
_CA = "/var/run/fulcio"
"""Where Fulcio looks for the CA of the API server."""


@dataclass(frozen=True)
class Sigstore:
    """Both in the namespace of a tenant."""

    tenant: Tenant
    made: Authorities
    issuer: str

    @property
    def policy(self) -> dict[str, Any]:
        """`signing.keyless` of a policy."""
        fulcio, timestamps = (f"http://{name}.{self.tenant.namespace}.svc:{PORT}" for name in _PROGRAMS)
        return {"fulcio": fulcio, "timestampAuthority": f"{timestamps}/api/v1/timestamp", "plainHttp": True}

    def demands(self, account: str) -> dict[str, str]:
        """Return what verifiers demand of images that a ServiceAccount has signed."""
        subject = f"https://kubernetes.io/namespaces/{self.tenant.namespace}/serviceaccounts/{account}"
        chains = {"roots": self.made.fulcio.pem, "timestamps": self.made.timestamps.pem}
        return {"subject": subject, "issuer": self.issuer, **chains}

    def scale(self, name: str, replicas: int) -> None:
        """Start or stop one of them, and wait for that."""
        self.tenant.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}")
        if replicas:
            self.tenant.kubectl("rollout", "status", f"deployment/{name}", "--timeout=300s")
        else:
            self.tenant.kubectl("wait", "pod", f"--selector=app={name}", "--for=delete", "--timeout=300s")


@contextmanager
def serving(tenant: Tenant) -> Iterator[Sigstore]:
    """Serve in the tenant's namespace until the block ends."""
    target, made = tenant.target, Authorities.new()
    issuer = json.loads(target.kubectl("get", "--raw", "/.well-known/openid-configuration"))["issuer"]
    found, image = Sigstore(tenant, made, issuer), _image(target)
    tenant.secret("authorities", **made.files(authorities.configuration(issuer)))
    arguments = {
        "fulcio": authorities.fulcio(_FILES, "0.0.0.0", (PORT, PORT + 1, PORT + 2), "/tmp/socket"),
        "timestamps": authorities.timestamps(_FILES, "0.0.0.0", PORT),
    }
    # Fulcio asks for the keys that verify tokens as anybody may, at the address that the API server names.
    role = f"{tenant.namespace}-issuer"
    discovery = ("--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated")
    target.kubectl("create", "clusterrolebinding", role, *discovery)
    try:
        for name in _PROGRAMS:
            for manifest in _manifests(name, target.pulled(image), arguments[name]):
                tenant.apply(manifest)
        for name in _PROGRAMS:
            tenant.kubectl("rollout", "status", f"deployment/{name}", "--timeout=300s")
        yield found
    finally:
        target.kubectl("delete", "clusterrolebinding", role)


def _manifests(name: str, image: str, arguments: list[str]) -> Iterator[dict[str, Any]]:
    labels = {"app": name}
    container = {
        "name": name,
        "image": image,
        "command": [f"/usr/local/bin/{name}", *arguments],
        "volumeMounts": [{"name": "files", "mountPath": _FILES}, {"name": "ca", "mountPath": _CA}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    volumes = [
        {"name": "files", "secret": {"secretName": "authorities"}},
        {"name": "ca", "configMap": {"name": "kube-root-ca.crt"}},
    ]
    pod = {
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": volumes,
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    service = {"selector": labels, "ports": [{"port": PORT}]}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}


def _image(target: Target) -> str:
    """Return an image with both programs, for amd64."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for name in _PROGRAMS:
            data = program(name).read_bytes()
            entry = tarfile.TarInfo(f"usr/local/bin/{name}")
            entry.size, entry.mode = len(data), 0o755
            layer.addfile(entry, io.BytesIO(data))
    registry = target.facts.registry
    image = f"{registry}/test/sigstore:{hashlib.sha256(content.getvalue()).hexdigest()[:16]}"
    if target.manifest(image) is None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "layer.tar")
            file.write_bytes(content.getvalue())
            base = f"--base={registry}/library/busybox:1.36"
            target.crane("append", base, "--platform=linux/amd64", f"--new_layer={file}", f"--new_tag={image}")
    return image
