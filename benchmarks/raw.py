"""Raw pods: what a patient person would apply by hand, one BuildKit pod per platform, and `crane` for the index."""

import json
import time
from typing import Any

from hack.target import Target
from multiarchbuild.plan.policy import BUILDKIT_IMAGE
from multiarchbuild.steps.dates import EARLIEST

from . import pods
from .contestant import BenchmarkError, Timing, phases
from .pods import STEP
from .watch import Watch
from .workload import PLATFORMS, TAG, Case, arch, files

_SOCKET = "/run/buildkit/buildkitd.sock"
_CONTEXT = "/work/context"
_SCRIPT = f"""\
mkdir {_CONTEXT}
cp -L /inputs/* {_CONTEXT}
touch -d @{EARLIEST} {_CONTEXT}/* {_CONTEXT}
until [ -S {_SOCKET} ]; do sleep 0.02; done
"$@" 2>&1
cp /work/metadata.json /dev/termination-log
"""


class RawPods:
    """BuildKit as a native sidecar, `buildctl` beside it, pushed by digest."""

    name = "raw pods"

    def __init__(self, target: Target, namespace: str) -> None:
        self._target = target
        self._namespace = namespace

    def build(self, case: Case, image: str) -> Timing:
        """Apply two pods, wait until both have ended, push the index."""
        names = {platform: f"raw-{case}-{arch(platform)}" for platform in PLATFORMS}
        config = f"raw-{case}"
        items = [_config_map(self._target, config, case)]
        items += [_pod(name, config, platform, image) for platform, name in names.items()]
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        with Watch(self._target, f"/api/v1/namespaces/{self._namespace}/pods") as watch:
            start = time.time()
            self._target.kubectl("apply", "--namespace", self._namespace, "--filename", "-", stdin=manifest)
            watch.until(lambda events: len(pods.ended(events, names.values())) == len(names), "the raw pods")
            built = pods.ended(watch.events, names.values())
            self._push_index(image, [self._digest(name, built[name]) for name in names.values()])
            published = time.time()
            built_at = pods.times(self._target, self._namespace, watch.events, names.values())
        self.reset()
        return phases(
            start,
            {
                "pods created": built_at.created,
                "scheduled": built_at.scheduled,
                "builders started": built_at.started,
                "built and pushed": built_at.ended,
                "end seen": built_at.seen,
                "index pushed": published,
            },
        )

    def reset(self) -> None:
        """Delete the pods and wait until they are gone."""
        self._target.kubectl("delete", "pods,configmaps", "--namespace", self._namespace, "--selector", "benchmark=raw")

    def _digest(self, name: str, state: dict[str, Any]) -> str:
        if state["exitCode"]:
            log = self._target.kubectl("logs", name, "--namespace", self._namespace, "--container", STEP, "--tail=30")
            raise BenchmarkError(f"pod {name} failed:\n{log}")
        digest: str = json.loads(state["message"])["containerimage.digest"]
        return digest

    def _push_index(self, image: str, digests: list[str]) -> None:
        manifests = [f"--manifest={image}@{digest}" for digest in digests]
        insecure = ["--insecure"] if self._target.facts.registry_insecure else []
        self._target.run("crane", "index", "append", *insecure, *manifests, f"--tag={image}:{TAG}")


def _config_map(target: Target, name: str, case: Case) -> dict[str, Any]:
    data = {**files(case), "buildkitd.toml": target.facts.buildkitd_toml}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(name), "immutable": True, "data": data}


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {"benchmark": "raw"}}


def _pod(name: str, config: str, platform: str, image: str) -> dict[str, Any]:
    unconfined = {"type": "Unconfined"}
    user = {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True}
    socket = {"name": "socket", "mountPath": "/run/buildkit"}
    inputs = [{"key": key, "path": key} for key in files(Case.COLD)]
    buildkitd = {
        "name": "buildkitd",
        "image": BUILDKIT_IMAGE,
        "restartPolicy": "Always",
        "args": ["--config=/config/buildkitd.toml", f"--addr=unix://{_SOCKET}", "--oci-worker-no-process-sandbox"],
        "securityContext": {**user, "seccompProfile": unconfined, "appArmorProfile": unconfined},
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "state", "mountPath": "/home/user/.local/share/buildkit"},
            socket,
        ],
    }
    step = {
        "name": STEP,
        "image": BUILDKIT_IMAGE,
        "command": ["sh", "-ec", _SCRIPT, "sh", *_buildctl(platform, image)],
        "env": [{"name": "HOME", "value": "/work"}],
        "securityContext": {
            **user,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "inputs", "mountPath": "/inputs", "readOnly": True},
            {"name": "work", "mountPath": "/work"},
            socket,
        ],
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/arch": arch(platform)},
        "initContainers": [buildkitd],
        "containers": [step],
        "volumes": [
            {
                "name": "config",
                "configMap": {"name": config, "items": [{"key": "buildkitd.toml", "path": "buildkitd.toml"}]},
            },
            {"name": "inputs", "configMap": {"name": config, "items": inputs}},
            {"name": "state", "emptyDir": {}},
            {"name": "work", "emptyDir": {}},
            {"name": "socket", "emptyDir": {}},
        ],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(name), "spec": spec}


def _buildctl(platform: str, image: str) -> list[str]:
    """Return the build command, with the options that the operator uses by default."""
    cache = f"type=registry,ref={image}:cache-{arch(platform)}"
    return [
        *("buildctl", f"--addr=unix://{_SOCKET}", "build", "--progress=plain", "--frontend=dockerfile.v0"),
        *(f"--local=context={_CONTEXT}", f"--local=dockerfile={_CONTEXT}", f"--opt=platform={platform}"),
        *("--opt=attest:provenance=mode=min", f"--opt=build-arg:SOURCE_DATE_EPOCH={EARLIEST}"),
        f"--output=type=image,name={image},push=true,push-by-digest=true,oci-mediatypes=true,rewrite-timestamp=true",
        *(f"--import-cache={cache}", "--metadata-file=/work/metadata.json"),
        f"--export-cache={cache},mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true",
    ]
