"""The operator: `kubectl apply` of a MultiArchBuild until it is Ready."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hack.target import CommandError, Target
from multiarchbuild.plan.children import ROLE_LABEL, RUN_LABEL, Role

from . import pods
from .contestant import BenchmarkError, Timing, phases
from .watch import Event, Watch
from .workload import PLATFORMS, TAG, Case, files

_RESOURCE = "multiarchbuilds.multiarch.build"
_NAME = "bench"


class Operator:
    """The product, with the defaults of its resource."""

    name = "operator"

    def __init__(self, target: Target, namespace: str) -> None:
        self._target = target
        self._namespace = namespace
        self._last_run = ""

    def build(self, case: Case, image: str) -> Timing:
        """Apply the resource and wait for Ready=True of the run that follows."""
        manifest = json.dumps(_manifest(case, image))
        folder = f"/apis/multiarch.build/v1alpha1/namespaces/{self._namespace}/multiarchbuilds"
        with (
            Watch(self._target, f"/api/v1/namespaces/{self._namespace}/pods") as watched_pods,
            Watch(self._target, folder) as watched_builds,
        ):
            start = time.time()
            self._target.kubectl("apply", "--namespace", self._namespace, "--filename", "-", stdin=manifest)
            ready = watched_builds.until(self._is_ready, "Ready=True")
            run = watched_builds.events[-1].object["status"]["run"]
            self._last_run = run["id"]
            self._await_end_of_pods(run["id"])
            events = watched_pods.events
            build_pods = _names(events, run["id"], Role.BUILD)
            built = pods.times(self._target, self._namespace, events, build_pods)
            publish_pods = _names(events, run["id"], Role.PUBLISH)
            published = pods.times(self._target, self._namespace, events, publish_pods)
        return phases(
            start,
            {
                "pods created": built.created,
                "scheduled": built.scheduled,
                "builders started": built.started,
                "built and pushed": built.ended,
                "end seen": built.seen,
                # Its pod has been started meanwhile.
                "index pushed": published.ended,
                "publish end seen": published.seen,
                "Ready seen": ready,
            },
        )

    def reset(self) -> None:
        """Delete the resource, and wait until its pods are gone."""
        self._last_run = ""
        try:
            self._target.kubectl("delete", _RESOURCE, _NAME, "--namespace", self._namespace, "--ignore-not-found")
        except CommandError as error:
            if "doesn't have a resource type" not in str(error):
                raise
            return
        self._target.kubectl(
            *("wait", "pods", "--namespace", self._namespace, "--selector", RUN_LABEL),
            *("--for=delete", "--timeout=120s"),
        )

    def _is_ready(self, events: Sequence[Event]) -> bool:
        if not events:
            return False
        build = events[-1].object
        status = build.get("status", {})
        run = status.get("run", {})
        if status.get("observedGeneration") != build["metadata"]["generation"] or run.get("id") in (
            None,
            self._last_run,
        ):
            return False
        ready: dict[str, Any] = next((entry for entry in status.get("conditions", ()) if entry["type"] == "Ready"), {})
        if run.get("result") not in (None, "Succeeded"):
            logs = "\n".join(entry.get("logTail", "") for entry in run["platforms"])
            raise BenchmarkError(f"the operator's build failed: {ready.get('reason')}: {ready.get('message')}\n{logs}")
        return bool(ready.get("status") == "True")

    def _await_end_of_pods(self, run: str) -> None:
        """Wait until BuildKit has ended too: it must not run beside the next contestant."""
        self._target.kubectl(
            *("wait", "pods", "--namespace", self._namespace, "--selector", f"{RUN_LABEL}={run}"),
            *("--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"),
        )


def _manifest(case: Case, image: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": _NAME}
    if case is Case.REBUILD:
        metadata["annotations"] = {"multiarch.build/rebuild-requested-at": datetime.now(UTC).isoformat()}
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": metadata,
        "spec": {
            "platforms": list(PLATFORMS),
            "source": {"inline": {"files": files(case)}},
            "output": {"image": image, "tags": [TAG]},
        },
    }


def _names(events: Sequence[Event], run: str, role: Role) -> list[str]:
    """Return the names of the pods of a run."""
    found = dict[str, None]()
    for event in events:
        labels = event.object["metadata"].get("labels", {})
        if (labels.get(RUN_LABEL), labels.get(ROLE_LABEL)) == (run, role):
            found[event.object["metadata"]["name"]] = None
    return list(found)
