"""Build the operator's image for every platform with a BuildKit pod in the cluster, and push it to its registry."""

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .target import CommandError, Target, finish

ROOT = Path(__file__).parent.parent
CONTENT = ("Dockerfile", ".dockerignore", "requirements.lock", "operator")
PLATFORMS = ("linux/amd64", "linux/arm64")
NAMESPACE = "multiarchbuild-image"
BUILDKIT = "moby/buildkit:v0.32.2-rootless"


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
    with contextlib.suppress(CommandError):
        target.crane("digest", image)
        return image
    started = time.monotonic()
    print(f"==> building {image} for {', '.join(platforms)}", flush=True)
    with _builder(target) as address:
        output = ["type=image", f"name={image}", "push=true", "oci-mediatypes=true"]
        command = ["buildctl", "--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0"]
        command += [f"--local=context={ROOT}", f"--local=dockerfile={ROOT}", f"--opt=platform={','.join(platforms)}"]
        command += [f"--opt=target={stage}"]
        command += [f"--output={','.join(output)}"]
        # The builder is a fresh pod each time: what did not change comes from the registry.
        cache = f"type=registry,ref={target.facts.registry}/{repository}:build-cache"
        command += [f"--import-cache={cache}", f"--export-cache={cache},mode=max,ignore-error=true"]
        done = subprocess.run(command, env=target.environment, stdout=sys.stderr, stderr=sys.stderr, check=False)
    if done.returncode:
        raise CommandError(f"buildctl could not build {image}: see above")
    print(f"    built and pushed in {time.monotonic() - started:.0f} s", flush=True)
    return image


def _content(platforms: tuple[str, ...]) -> str:
    """Return a tag for the working tree: a hash of the files that go into the image."""
    digest = hashlib.sha256(json.dumps(platforms).encode())
    for name in CONTENT:
        root = ROOT / name
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _builder(target: Target) -> Iterator[str]:
    """Run a rootless BuildKit pod; yield its address for buildctl."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    target.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    target.kubectl("wait", "serviceaccount/default", "--namespace", NAMESPACE, "--for=create", "--timeout=60s")
    name = f"buildkitd-{time.time_ns() % 10**9}"
    target.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": _pod(target, name)})
    )
    try:
        target.kubectl("wait", f"pod/{name}", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=180s")
        yield f"kube-pod://{name}?namespace={NAMESPACE}"
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
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
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
    return finish(lambda target: print(build_image(target)))


if __name__ == "__main__":
    raise SystemExit(main())
