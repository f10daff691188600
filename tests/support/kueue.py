"""Kueue in the cluster: installed by the chart of its Go module, with an image of the program compiled here."""

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from hack.target import CommandError, Target

from .crds import apply, await_established, skip_beside
from .go_modules import module_directory, pinned
from .judges import program
from .poll import until

NAMESPACE = "kueue-system"
GATES = "kueue.x-k8s.io/admission, kueue.x-k8s.io/topology"
"""What the message of a builder that waits names."""
MANAGED = {"example.com/kueue": "true"}
"""Labels of the namespaces whose pods Kueue may hold back: what other tests make is not its business."""
_DEPLOYMENT = ("--namespace", NAMESPACE, "deployment/kueue-controller-manager")
_FINALIZERS = "kueue.x-k8s.io/"
_PROBE = {
    "apiVersion": "kueue.x-k8s.io/v1beta2",
    "kind": "ClusterQueue",
    "metadata": {"name": "probe"},
    "spec": {"namespaceSelector": {}},
}
"""It is never made: its dry run is what Kueue's webhooks have to answer."""
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
    """Run Kueue, which admits the pods of the namespaces that are `MANAGED`; skip where the cluster has one already."""
    skip_beside(target, "crd/clusterqueues.kueue.x-k8s.io", f"namespace/{NAMESPACE}")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    objects = _objects(target)
    crds = [each for each in objects if each["kind"] == "CustomResourceDefinition"]
    others = [each for each in objects if each not in crds]
    # Each is tried, whatever has failed before it.
    with ExitStack() as stack:
        stack.callback(_release_pods, target)
        stack.callback(_delete, target, [*others, namespace])
        stack.callback(_delete_definitions, target, crds, others)
        stack.callback(_print_log, target)
        apply(target, [namespace, *crds])
        await_established(target.kubectl, *(f"crd/{each['metadata']['name']}" for each in crds))
        apply(target, others)
        await_ready(target)
        yield


def await_ready(target: Target) -> None:
    """Wait until it answers, also after a test that had the cluster alone has taken its node away.

    What the Deployment says of a node that was without power for a moment is what it said before.
    """
    target.kubectl("rollout", "status", *_DEPLOYMENT, "--timeout=600s")
    said = ""

    def answers() -> bool:
        nonlocal said
        try:
            target.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(_PROBE))
        except CommandError as error:
            said = str(error)
            return False
        return True

    try:
        until("a webhook of Kueue answers", answers)
    except AssertionError:
        print(said)
        raise


def _print_log(target: Target) -> None:
    with _reported():
        print(target.kubectl("logs", *_DEPLOYMENT, "--tail=200"))


def _delete_definitions(target: Target, crds: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Delete the definitions, and with them the objects of their kinds, of which Kueue lets go while it runs."""
    try:
        _delete(target, crds, seconds=120)
    except CommandError as error:
        print(f"Kueue does not let go of its objects, they are deleted without it: {error}")
        # Its webhooks would refuse each change.
        _delete(target, others)
        for crd in crds:
            spec = crd["spec"]
            (version,) = (each["name"] for each in spec["versions"] if each["storage"])
            _release(target, f"{spec['names']['plural']}.{version}.{spec['group']}", "--all-namespaces")
        _delete(target, crds)


def _release_pods(target: Target) -> None:
    """Let the pods go that tests have left: without Kueue they stay for ever, and their namespaces with them."""
    selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
    for name in target.kubectl("get", "namespaces", f"--selector={selector}", "--output=name").split():
        _release(target, "pods", "--namespace", name.removeprefix("namespace/"))


def _release(target: Target, kind: str, *scope: str) -> None:
    """Take the finalizers of Kueue off objects, as far as there are any."""
    with _reported():
        found = json.loads(target.kubectl("get", kind, *scope, "--ignore-not-found", "--output=json") or "{}")
        for meta in (each["metadata"] for each in found.get("items", ())):
            finalizers = meta.get("finalizers", [])
            others = [each for each in finalizers if not each.startswith(_FINALIZERS)]
            if others != finalizers:
                namespace = ("--namespace", meta["namespace"]) if "namespace" in meta else ()
                patch = json.dumps({"metadata": {"finalizers": others}})
                with _reported():
                    target.kubectl("patch", kind, meta["name"], *namespace, "--type=merge", "-p", patch)


@contextmanager
def _reported() -> Iterator[None]:
    """Print what kubectl fails with: what comes next has to be tried too."""
    try:
        yield
    except CommandError as error:
        print(error)


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


def _delete(target: Target, objects: list[dict[str, Any]], seconds: int = 300) -> None:
    manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    command = ("kubectl", "delete", "--ignore-not-found", f"--timeout={seconds}s", "-f", "-")
    # The timeout of kubectl counts for each object, this one for all.
    target.run(*command, stdin=manifests, timeout=seconds + 10)
