"""Volumes from folders of nodes: Rancher's local-path-provisioner, for one namespace."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hack.target import Target

from .judges import program

_CONFIG = "local-path-config"
_HELPER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "helper-pod"},
    "spec": {"containers": [{"name": "helper-pod", "image": "busybox:1.36", "imagePullPolicy": "IfNotPresent"}]},
}
"""Makes and removes folders on nodes."""
_FILES = {
    "config.json": json.dumps(
        {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/var/tmp/local-path"]}]}
    ),
    # As a formatted disk: it belongs to root, and nobody else may write to it.
    "setup": '#!/bin/sh\nset -eu\nmkdir -m 0755 -p "$VOL_DIR"\n',
    "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
    "helperPod.yaml": json.dumps(_HELPER),
}


@contextmanager
def storage_class(target: Target, namespace: str, folder: Path) -> Iterator[str]:
    """Yield the name of a StorageClass whose volumes are folders, `test-` and the namespace where its helpers run."""
    name, log = f"test-{namespace}", folder / "local-path-provisioner.log"
    provisioner = f"local-path.example.com/{namespace}"
    _create(target, "v1", "ConfigMap", {"name": _CONFIG, "namespace": namespace}, data=_FILES)
    binding = {"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"}
    _create(target, "storage.k8s.io/v1", "StorageClass", {"name": name}, **binding)
    command = [str(program("local-path-provisioner")), "start", f"--provisioner-name={provisioner}"]
    command += [f"--namespace={namespace}", f"--configmap-name={_CONFIG}", "--service-account-name=default"]
    try:
        with (
            log.open("wb") as output,
            subprocess.Popen(command, env=target.environment, stdout=output, stderr=output) as process,
        ):
            try:
                yield name
            finally:
                process.terminate()
    finally:
        target.kubectl("delete", "storageclass", name)
        print(log.read_text(encoding="utf-8", errors="replace"))


def _create(target: Target, version: str, kind: str, metadata: dict[str, Any], **fields: Any) -> None:
    manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
    target.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
