"""A namespace with builds in it, as the people who own it see them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hack.target import Target

from . import watch
from .images import Images

AMD64, ARM64 = "linux/amd64", "linux/arm64"
BOTH = [AMD64, ARM64]
RESOURCE = "multiarchbuilds.multiarch.build"
TINY = "FROM busybox:1.36\nRUN uname -m > /machine\n"
"""A Dockerfile that takes a second."""

Status = dict[str, Any]
Pods = list[dict[str, Any]]


def inline(dockerfile: str = TINY, **files: str) -> dict[str, Any]:
    """Return `spec.source` with a Dockerfile and more files."""
    return {"inline": {"files": {"Dockerfile": dockerfile, **files}}}


def condition(status: Status, kind: str) -> dict[str, Any]:
    """Return the condition of this type, empty where there is none."""
    return next((entry for entry in status.get("conditions", ()) if entry["type"] == kind), {})


def platform(status: Status, name: str) -> dict[str, Any]:
    """Return the entry of a platform in the run."""
    return next(entry for entry in status["run"]["platforms"] if entry["platform"] == name)


def has_ended(pod: dict[str, Any]) -> bool:
    """Return whether the step of a pod has ended, which kubelet says before it says so of the pod."""
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return any("terminated" in entry["state"] for entry in statuses if entry["name"] == "step")


def was_handed_over(pods: Pods) -> bool:
    """Return whether the publish step, which starts while the last platform ends, was told what was built."""
    return any("multiarch.build/built" in pod["metadata"].get("annotations", {}) for pod in pods)


@dataclass(frozen=True)
class Build:
    """A MultiArchBuild."""

    tenant: "Tenant"
    name: str

    def get(self) -> dict[str, Any]:
        """Return the object."""
        return dict(json.loads(self.tenant.kubectl("get", RESOURCE, self.name, "-o", "json")))

    @property
    def status(self) -> Status:
        """The status as it is now."""
        return dict(self.get().get("status", {}))

    def patch(self, **spec: Any) -> None:
        """Merge `spec` into the spec."""
        self.tenant.kubectl("patch", RESOURCE, self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def annotate(self, **annotations: str) -> None:
        """Set annotations of multiarch.build; '_' stands for '-'."""
        pairs = [f"multiarch.build/{name.replace('_', '-')}={value}" for name, value in annotations.items()]
        self.tenant.kubectl("annotate", "--overwrite", RESOURCE, self.name, *pairs)

    def rebuild(self) -> None:
        """Ask for another run."""
        self.annotate(rebuild_requested_at=datetime.now(UTC).isoformat())

    def until(self, check: Callable[[Status], Any], seconds: float = watch.PATIENCE, why: str = "") -> Status:
        """Wait until `check` holds for the status of the present spec, and return that.

        It fails when the build has not changed for `seconds`.
        """

        def found(objects: watch.Objects) -> Status | None:
            for entry in objects.values():
                status = entry.get("status", {})
                if status.get("observedGeneration") == entry["metadata"]["generation"] and check(status):
                    return dict(status)
            return None

        selector = ("--field-selector", f"metadata.name={self.name}")
        return watch.wait_for(
            self.tenant.target,
            *(RESOURCE, "-n", self.tenant.namespace, *selector),
            until=found,
            seconds=seconds,
            why=why or f"{self.name} is as expected",
        )

    def started(self) -> Status:
        """Wait until there is a run."""
        return self.until(lambda status: "run" in status, why=f"{self.name} has a run")

    def ended(self, after: str = "", seconds: float = watch.PATIENCE) -> Status:
        """Wait for the end of a run, and of another than `after`; return the status then."""

        def check(status: Status) -> bool:
            run = status.get("run", {})
            return "result" in run and run["id"] != after

        return self.until(check, seconds, f"the run of {self.name} ends")

    def succeeded(self, after: str = "") -> Status:
        """Wait for the end of a run that must succeed."""
        status = self.ended(after)
        assert status["run"]["result"] == "Succeeded", json.dumps(status["run"], indent=1)
        assert condition(status, "Ready")["status"] == "True"
        return status

    def failed(self, reason: str, after: str = "") -> Status:
        """Wait for the end of a run that must fail for `reason`."""
        status = self.ended(after)
        assert status["run"]["result"] == "Failed", json.dumps(status["run"], indent=1)
        ready = condition(status, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", reason), json.dumps(status, indent=1)
        assert condition(status, "Stalled")["status"] == "True"
        return status

    def pods(self) -> list[dict[str, Any]]:
        """Return its pods."""
        return self.tenant.list("pods", f"multiarch.build/build-uid={self.get()['metadata']['uid']}")

    def events(self, until: Callable[[list[str]], Any] | None = None, **told: int) -> list[dict[str, Any]]:
        """Return its Events, the first one first, once there are as many as `told` says of each reason.

        And once `until` holds for their notes. They are written after the status that they are about.
        """
        uid = self.get()["metadata"]["uid"]

        def found(objects: watch.Objects) -> bool:
            own = [event for event in objects.values() if event["regarding"].get("uid") == uid]
            reasons = [event["reason"] for event in own]
            enough = all(reasons.count(reason) >= count for reason, count in told.items())
            return enough and (until is None or bool(until([event["note"] for event in own])))

        if told or until is not None:
            what = ("events.events.k8s.io", "-n", self.tenant.namespace)
            watch.wait_for(self.tenant.target, *what, until=found, why=f"{self.name} has Events of {told}")
        # All of them: a watch shows what there is one by one, and in any order.
        own = [event for event in self.tenant.list("events.events.k8s.io") if event["regarding"].get("uid") == uid]
        return sorted(own, key=lambda event: str(event["eventTime"]))

    def columns(self, *options: str) -> dict[str, str]:
        """Return what kubectl get shows, by the heading of the column."""
        heading, values = self.tenant.kubectl("get", "mab", self.name, *options).splitlines()
        starts = [match.start() for match in re.finditer(r"\S+", heading)]
        spans = list(zip(starts, [*starts[1:], None], strict=True))
        return {heading[start:end].strip(): values[start:end].strip() for start, end in spans}

    def delete(self) -> None:
        """Delete it."""
        self.tenant.kubectl("delete", RESOURCE, self.name)


@dataclass(frozen=True)
class Tenant:
    """A namespace of its own for one test."""

    target: Target
    namespace: str

    @property
    def images(self) -> Images:
        """What the registries hold."""
        return Images(self.target)

    def image(self, name: str = "app") -> str:
        """Return a repository that only this test uses."""
        return f"{self.target.facts.registry}/{self.namespace}/{name}"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace and return what it printed."""
        return self.target.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply a manifest."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def list(self, kind: str, selector: str = "") -> "list[dict[str, Any]]":
        """Return the objects of a kind."""
        return list(json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"])

    def pods_until(self, role: str, check: Callable[[Pods], bool], why: str) -> None:
        """Wait until `check` holds for the pods of a step."""
        watch.wait_for(
            self.target,
            *("pods", "-n", self.namespace, "-l", f"multiarch.build/role={role}"),
            until=lambda pods: check([*pods.values()]),
            why=why,
        )

    def secret(self, name: str, kind: str = "Opaque", **data: str) -> None:
        """Make a Secret; '__' in a key stands for '.', '_' for '-'."""
        entries = {key.replace("__", ".").replace("_", "-"): value for key, value in data.items()}
        self.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": entries}
        )

    def build(self, name: str = "app", **spec: Any) -> Build:
        """Make a build: of a tiny Dockerfile for both platforms, but for what `spec` says otherwise."""
        spec = {"platforms": BOTH, "source": inline(), "output": {}, "cache": {"mode": "Disabled"}, **spec}
        spec["output"] = {"image": self.image(), **spec["output"]}
        manifest = {"apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild", "metadata": {"name": name}}
        self.apply({**manifest, "spec": spec})
        return Build(self, name)

    def story(self) -> str:
        """Return what happened here, for the report of a test that failed."""
        parts = [
            self.kubectl("get", RESOURCE, "-o", "yaml"),
            self.kubectl("get", "events", "--sort-by=.metadata.creationTimestamp"),
            self.kubectl("get", "pods", "-o", "wide"),
        ]
        for pod in self.list("pods"):
            parts.append(f"--- {pod['metadata']['name']}")
            parts += [self._log(pod["metadata"]["name"], container) for container in ("step", "buildkitd")]
        return "\n".join(parts)

    def _log(self, pod: str, container: str) -> str:
        try:
            return self.kubectl("logs", pod, "-c", container, "--tail=40")
        except Exception as error:  # noqa: BLE001 - a report about a failure must not fail itself
            return str(error)


def await_idle(tenant: Tenant, pod: str) -> None:
    """Wait until a kept builder waits for work."""
    path = r"jsonpath={.metadata.annotations.cluster-autoscaler\.kubernetes\.io/safe-to-evict}=true"
    tenant.kubectl("wait", f"pod/{pod}", f"--for={path}", "--timeout=300s")
