"""Build the operator's image for every platform with a BuildKit pod in the cluster, and push it to its registry."""

import argparse
import contextlib
import hashlib
import io
import json
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from .target import CommandError, Target, finish

ROOT = Path(__file__).parent.parent
CONTENT = ("Dockerfile", ".dockerignore", "requirements.lock", "operator")
PLATFORMS = ("linux/amd64", "linux/arm64")
NAMESPACE = "multiarchbuild-image"
BUILDKIT = "moby/buildkit:v0.32.2-rootless"
_SOURCE = "/tmp/source"


def build_image(target: Target, platforms: tuple[str, ...] = PLATFORMS, stage: str = "operator") -> str:
    """Return the image of this working tree, `registry/multiarchbuild:<hash of its content>`; built only once.

    Args:
        target: The cluster that builds it, and its registry.
        platforms: What it is built for.
        stage: Stage of the Dockerfile: `operator`, or `qemu`, whose image is `registry/multiarchbuild-qemu`.

    Raises:
        CommandError: It can't be built.
    """
    repository = "multiarchbuild" if stage == "operator" else f"multiarchbuild-{stage}"
    image = f"{target.facts.registry}/{repository}:{_content(platforms)}"
    if target.manifest(image):
        return image
    started = time.monotonic()
    print(f"==> building {image} for {', '.join(platforms)}", flush=True)
    with _builder(target) as pod:
        output = ["type=image", f"name={image}", "push=true", "oci-mediatypes=true"]
        build = ["buildctl", "build", "--progress=plain", "--frontend=dockerfile.v0", f"--opt=target={stage}"]
        build += [
            f"--local=context={_SOURCE}",
            f"--local=dockerfile={_SOURCE}",
            f"--opt=platform={','.join(platforms)}",
        ]
        build += [f"--output={','.join(output)}"]
        # The builder is a fresh pod each time: what did not change comes from the registry.
        cache = f"type=registry,ref={target.facts.registry}/{repository}:build-cache"
        build += [f"--import-cache={cache}", f"--export-cache={cache},mode=max,ignore-error=true"]
        # What it builds is small; so nobody needs a buildctl of the same version.
        script = f"rm -rf {_SOURCE} && mkdir {_SOURCE} && tar -xf - -C {_SOURCE} && exec {shlex.join(build)}"
        command = ["kubectl", "exec", "--stdin", pod, "--namespace", NAMESPACE, "--", "sh", "-c", script]
        done = subprocess.run(
            command, env=target.environment, input=_packed(), stdout=sys.stderr, stderr=sys.stderr, check=False
        )
    if done.returncode:
        raise CommandError(f"buildctl could not build {image}: see above")
    print(f"    built and pushed in {time.monotonic() - started:.0f} s", flush=True)
    return image


def native(target: Target) -> tuple[str, ...]:
    """Return for which platforms the operator's image is built: those of the nodes; on the local cluster all."""
    if target.facts.instance:
        return PLATFORMS
    return tuple(sorted({f"linux/{architecture}" for architecture in target.nodes.values()} & set(PLATFORMS)))


def _content(platforms: tuple[str, ...]) -> str:
    """Return a tag for the working tree: a hash of the files that go into the image."""
    digest = hashlib.sha256(json.dumps(platforms).encode())
    for file in _files():
        digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _files() -> Iterator[Path]:
    """Yield what the image is made of."""
    for name in CONTENT:
        root = ROOT / name
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file


def _packed() -> bytes:
    """Return them as a tar."""
    to = io.BytesIO()
    with tarfile.open(mode="w", fileobj=to) as tar:
        for file in _files():
            tar.add(file, file.relative_to(ROOT), recursive=False)
    return to.getvalue()


@contextlib.contextmanager
def _builder(target: Target) -> Iterator[str]:
    """Run a rootless BuildKit pod; yield its name."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    target.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    target.kubectl("wait", "serviceaccount/default", "--namespace", NAMESPACE, "--for=create", "--timeout=300s")
    name = f"buildkitd-{time.time_ns() % 10**9}"
    target.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": _pod(target, name)})
    )
    try:
        target.kubectl("wait", f"pod/{name}", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=300s")
        yield name
    finally:
        target.kubectl("delete", f"pod/{name}", f"configmap/{name}", "--namespace", NAMESPACE, "--wait=false")


def _pod(target: Target, name: str) -> list[dict[str, object]]:
    meta = {"name": name, "namespace": NAMESPACE}
    socket = "unix:///run/user/1000/buildkit/buildkitd.sock"
    unconfined = {"type": "Unconfined"}
    container = {
        "name": "buildkitd",
        "image": BUILDKIT,
        "args": ["--config=/etc/mab/buildkitd.toml", f"--addr={socket}", "--oci-worker-no-process-sandbox"],
        "env": [{"name": "BUILDKIT_HOST", "value": socket}],
        "readinessProbe": {"exec": {"command": ["buildctl", "debug", "workers"]}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/mab"},
            {"name": "state", "mountPath": "/home/user/.local/share/buildkit"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/arch": "amd64" if "amd64" in target.nodes.values() else "arm64"},
        "securityContext": {
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": unconfined,
            "appArmorProfile": unconfined,
        },
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}, {"name": "state", "emptyDir": {}}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {"buildkitd.toml": target.facts.buildkitd_toml},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod},
    ]


def main() -> int:
    """Build the image for the cluster that the environment names, and print it."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    return finish(lambda target: print(build_image(target)), bring_registry=True)


if __name__ == "__main__":
    raise SystemExit(main())
