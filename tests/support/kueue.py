"""Kueue in the cluster: installed by the chart of its Go module, with an image of the program compiled here."""

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hack.target import Target

from .crds import await_established
from .go_modules import module_directory, pinned
from .judges import program

NAMESPACE = "kueue-system"
GATES = "kueue.x-k8s.io/admission, kueue.x-k8s.io/topology"
"""What the message of a builder that waits names."""
MANAGED = {"example.com/kueue": "true"}
"""Labels of the namespaces whose pods Kueue may hold back: what other tests make is not its business."""
_DEPLOYMENT = ("--namespace", NAMESPACE, "deployment/kueue-controller-manager")
_MODULE = "sigs.k8s.io/kueue"
_CONFIGURATION = {
    "apiVersion": "config.kueue.x-k8s.io/v1beta2",
    "kind": "Configuration",
    "integrations": {"frameworks": ["pod"]},
    "featureGates": {"VisibilityOnDemand": False},
    "managedJobsNamespaceSelector": {"matchLabels": MANAGED},
}


@contextmanager
def running(target: Target) -> Iterator[None]:
    """Run Kueue, which admits the pods of the namespaces that are `MANAGED`."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    objects = _objects(target)
    crds = [each for each in objects if each["kind"] == "CustomResourceDefinition"]
    others = [each for each in objects if each not in crds]
    try:
        _apply(target, [namespace, *crds])
        await_established(target.kubectl, *(f"crd/{each['metadata']['name']}" for each in crds))
        _apply(target, others)
        try:
            await_ready(target)
            yield
        finally:
            print(target.kubectl("logs", *_DEPLOYMENT, "--tail=200"))
    finally:
        # With a definition go the objects of its kind, while Kueue is there to let go of them.
        _delete(target, crds)
        _delete(target, [*others, namespace])


def await_ready(target: Target) -> None:
    """Wait until it answers, also after a test that had the cluster alone has taken its node away."""
    target.kubectl("rollout", "status", *_DEPLOYMENT, "--timeout=600s")


def _objects(target: Target) -> list[dict[str, Any]]:
    """Return what the chart installs, but for the API that lists what is pending (VisibilityOnDemand).

    While the Deployment behind an APIService starts, no namespace of any test is deleted.
    """
    chart = module_directory(_MODULE, pinned("kueue", _MODULE)) / "charts" / "kueue"
    repository, tag = target.pulled(_image(target)).rsplit(":", 1)
    manager = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "podSecurityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": None},
    }
    values = {
        "controllerManager": {"manager": manager, "nodeSelector": {"kubernetes.io/arch": "amd64"}},
        "managerConfig": {"controllerManagerConfigYaml": json.dumps(_CONFIGURATION)},
    }
    command = ("helm", "template", "kueue", str(chart), "--namespace", NAMESPACE, "--values", "-")
    rendered = yaml.safe_load_all(target.run(*command, stdin=json.dumps(values)))
    return [each for each in rendered if each and each["kind"] != "APIService"]


def _image(target: Target) -> str:
    """Return an image of the program in the registry of the cluster."""
    manager = program("kueue")
    image = f"{target.facts.registry}/kueue:{manager.parent.name}"
    if target.manifest(image):
        return image
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder, "layer.tar")
        with tarfile.open(layer, "w") as tar:
            tar.add(manager, "manager")
        target.crane("append", "--oci-empty-base", f"--new_layer={layer}", f"--new_tag={image}-any")
    target.crane("mutate", f"{image}-any", "--set-platform=linux/amd64", f"--tag={image}")
    return image


def _apply(target: Target, objects: list[dict[str, Any]]) -> None:
    target.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_list(objects))


def _list(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _delete(target: Target, objects: list[dict[str, Any]]) -> None:
    target.kubectl("delete", "--ignore-not-found", "--timeout=300s", "-f", "-", stdin=_list(objects))
