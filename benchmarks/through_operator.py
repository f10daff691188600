"""The operator: `kubectl apply` of a MultiArchBuild until it is Ready."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hack.target import CommandError, Target
from multiarchbuild.api.mounts import IDLE_ANNOTATION
from multiarchbuild.plan.children import ROLE_LABEL, RUN_LABEL, UID_LABEL, Role

from . import pods
from .contestant import BenchmarkError, Timing, phases
from .watch import Event, Watch
from .workload import PLATFORMS, TAG, Case, files

_RESOURCE = "multiarchbuilds.multiarch.build"
_PATIENCE = 120.0
_PAUSE = 0.2


class Operator:
    """The product, with the defaults of its resource but for kept builders: nothing stays between two builds."""

    name = "operator"
    keep = "0s"
    """How long its builders stay (scheduling.keepBuilder)."""

    def __init__(self, target: Target, namespace: str) -> None:
        self._target = target
        self._namespace = namespace
        self._last_run = ""

    def build(self, case: Case, image: str) -> Timing:
        """Apply the resource and wait for Ready=True of the run that follows."""
        manifest = json.dumps(self._manifest(case, image))
        folder = f"/apis/multiarch.build/v1alpha1/namespaces/{self._namespace}/multiarchbuilds"
        with (
            Watch(self._target, f"/api/v1/namespaces/{self._namespace}/pods") as watched_pods,
            # Only its own: what is written late about another contestant's is no answer.
            Watch(self._target, folder, self._resource) as watched_builds,
        ):
            start = time.time()
            self._target.kubectl("apply", "--namespace", self._namespace, "--filename", "-", stdin=manifest)
            ready = watched_builds.until(self._is_ready, "Ready=True")
            run = watched_builds.events[-1].object["status"]["run"]
            self._last_run = run["id"]
            self._await_end_of_pods(run["id"])
            if self.keep != "0s" or case is Case.REBUILD:
                # Its builders are older than the run, or there are none.
                return phases(start, {"Ready seen": ready})
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
            found = self._target.kubectl(
                *("get", _RESOURCE, self._resource, "--namespace", self._namespace, "--ignore-not-found"),
                "--output=jsonpath={.metadata.uid}",
            )
            self._target.kubectl("delete", _RESOURCE, self._resource, "-n", self._namespace, "--ignore-not-found")
        except CommandError as error:
            if "doesn't have a resource type" not in str(error):
                raise
            return
        if found:
            self._target.kubectl(
                *("wait", "pods", "--namespace", self._namespace, "--selector", f"{UID_LABEL}={found}"),
                *("--for=delete", "--timeout=120s"),
            )

    @property
    def _resource(self) -> str:
        return f"bench-{self.name.replace(' ', '-')}"

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
        """Wait until BuildKit has ended too, or waits for work: it must not run beside the next contestant."""
        deadline = time.monotonic() + _PATIENCE
        while not all(map(_rests, self._pods(run))):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"pods of run {run} have not ended within {_PATIENCE:.0f} s")
            time.sleep(_PAUSE)

    def _pods(self, run: str) -> list[dict[str, Any]]:
        selector = f"{RUN_LABEL}={run}"
        found = self._target.kubectl("get", "pods", "-n", self._namespace, "-l", selector, "-o", "json")
        pods_: list[dict[str, Any]] = json.loads(found)["items"]
        return pods_

    def _manifest(self, case: Case, image: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self._resource}
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
                "scheduling": {"keepBuilder": self.keep},
            },
        }


class Kept(Operator):
    """The same with builders that stay."""

    name = "operator kept"
    keep = "10m"


def _rests(pod: dict[str, Any]) -> bool:
    """Return whether a pod has ended, or is a builder that waits for work."""
    annotations = pod["metadata"].get("annotations", {})
    return pod["status"].get("phase") == "Succeeded" or bool(annotations.get(IDLE_ANNOTATION))


def _names(events: Sequence[Event], run: str, role: Role) -> list[str]:
    """Return the names of the pods of a run."""
    found = dict[str, None]()
    for event in events:
        labels = event.object["metadata"].get("labels", {})
        if (labels.get(RUN_LABEL), labels.get(ROLE_LABEL)) == (run, role):
            found[event.object["metadata"]["name"]] = None
    return list(found)
