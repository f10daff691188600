"""What people get wrong: each mistake ends soon, with a reason of its own and a message that says what to do."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from hack.target import CommandError
from tests.support.git import GitServer
from tests.support.images import docker_config
from tests.support.pace import slowness
from tests.support.tenant import AMD64, RESOURCE, TINY, Build, Status, Tenant, condition, inline, platform

pytestmark = pytest.mark.e2e

SOON = 30.0
"""Seconds for what needs no waiting, on an idle machine."""
Spec = dict[str, Any]
Mistake = Callable[[Tenant, GitServer], Spec]


def secure_image(tenant: Tenant) -> str:
    """Return a repository of the registry that demands a password."""
    secure = tenant.target.facts.secure_registry
    if secure is None:
        pytest.skip("the cluster has no registry with a password")
    return f"{secure.host}/{tenant.namespace}/app"


def wrong_password(tenant: Tenant, _: GitServer) -> Spec:
    image = secure_image(tenant)
    secure = tenant.target.facts.secure_registry
    assert secure is not None
    kind = "kubernetes.io/dockerconfigjson"
    tenant.secret("registry", kind, __dockerconfigjson=docker_config(secure, "wrong"))
    return {"output": {"image": image, "secretRefs": [{"name": "registry"}]}}


def no_password(tenant: Tenant, _: GitServer) -> Spec:
    return {"output": {"image": secure_image(tenant)}}


def missing_secret(*_: object) -> Spec:
    return {"output": {"secretRefs": [{"name": "nowhere"}]}}


def missing_signing_key(*_: object) -> Spec:
    return {"output": {"signing": {"secretRef": {"name": "nowhere"}}}}


def unreachable_registry(tenant: Tenant, _: GitServer) -> Spec:
    host = tenant.target.facts.registry.partition("/")[0].partition(":")[0]
    return {"output": {"image": f"{host}:5999/team/app"}, "retries": 0}


def unknown_ref(tenant: Tenant, server: GitServer) -> Spec:
    repository = server.repository(f"{tenant.namespace}.git")
    repository.commit({"Dockerfile": TINY})
    return {"source": {"git": {"url": repository.url, "ref": "no-such-branch"}}}


def unknown_repository(tenant: Tenant, server: GitServer) -> Spec:
    url = server.repository(f"{tenant.namespace}.git").url
    return {"source": {"git": {"url": url.replace(".git", "-not.git"), "ref": "main"}}}


def private_repository(tenant: Tenant, server: GitServer) -> Spec:
    return {"source": {"git": {"url": server.repository(f"{tenant.namespace}.git").private_url, "ref": "main"}}}


def wrong_git_password(tenant: Tenant, server: GitServer) -> Spec:
    tenant.secret("reader", "kubernetes.io/basic-auth", username="reader", password="wrong")
    url = server.repository(f"{tenant.namespace}.git").private_url
    return {"source": {"git": {"url": url, "ref": "main", "secretRef": {"name": "reader"}}}}


def missing_folder(tenant: Tenant, server: GitServer) -> Spec:
    repository = server.repository(f"{tenant.namespace}.git")
    commit = repository.commit({"Dockerfile": TINY})
    return {"source": {"git": {"url": repository.url, "ref": commit, "subdirectory": "no/such"}}}


def missing_dockerfile(*_: object) -> Spec:
    return {"source": {"inline": {"files": {"index.js": "//"}}}}


def out_of_memory(*_: object) -> Spec:
    hungry = "FROM busybox:1.36\nRUN dd if=/dev/zero of=/dev/null bs=900M count=1\n"
    return {
        "source": inline(hungry),
        "scheduling": {"resources": {"requests": {"memory": "128Mi"}, "limits": {"memory": "400Mi"}}},
        "retries": 0,
    }


def little_for_the_builder(*_: object) -> Spec:
    resources = {"requests": {"memory": "16Mi"}, "limits": {"memory": "16Mi"}}
    return {"scheduling": {"resources": resources}, "retries": 0}


def dockerfile(text: str, **build: Any) -> Mistake:
    return lambda *_: {"source": inline(text), "build": build}


MISTAKES: dict[str, tuple[Mistake, str, tuple[str, ...]]] = {
    "wrong push credentials": (wrong_password, "PushDenied", ("was denied", "output.secretRefs")),
    "no push credentials": (no_password, "PushDenied", ("was denied", "output.secretRefs")),
    "missing Secret": (missing_secret, "SecretNotFound", ("output.secretRefs[0]", "'nowhere'", "create it")),
    "missing signing key": (
        missing_signing_key,
        "SecretNotFound",
        ("output.signing.secretRef", "'nowhere'", "create it"),
    ),
    "unreachable registry": (unreachable_registry, "RegistryUnreachable", ("5999", "Check the host in output.image")),
    "unknown git ref": (unknown_ref, "GitRefNotFound", ("'no-such-branch'", "correct source.git.ref")),
    "unknown repository": (unknown_repository, "GitRepositoryNotFound", ("correct source.git.url",)),
    "private repository": (private_repository, "GitAuthenticationFailed", ("in source.git.secretRef",)),
    "wrong git password": (wrong_git_password, "GitAuthenticationFailed", ("the Secret 'reader'", "renew them")),
    "missing folder": (missing_folder, "DockerfileNotFound", ("no/such", "source.git.subdirectory")),
    "missing Dockerfile": (missing_dockerfile, "DockerfileNotFound", ("'Dockerfile'", "build.dockerfile")),
    "syntax error": (dockerfile("FROM busybox:1.36\nRNU true\n"), "DockerfileInvalid", ("unknown instruction: RNU",)),
    "unknown stage": (dockerfile(TINY, target="prod"), "TargetNotFound", ("'prod'", "build.target")),
    "unknown base image": (
        dockerfile("FROM busybox:none\n"),
        "BaseImageNotFound",
        ("busybox:none", "Correct its name"),
    ),
    "failing RUN": (
        dockerfile("FROM busybox:1.36\nRUN echo step one && echo the reason >&2 && exit 42\n"),
        "BuildFailed",
        ("exit code 42", "logTail"),
    ),
    "build that needs more memory": (out_of_memory, "OutOfMemory", ("scheduling.resources.limits.memory",)),
    "builder that needs more memory": (
        little_for_the_builder,
        "BuilderOutOfMemory",
        ("raise scheduling.resources.limits.memory",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_soon_with_its_reason_and_its_remedy(name: str, tenant: Tenant, git_server: GitServer) -> None:
    mistake, reason, words = MISTAKES[name]
    build = tenant.build(platforms=[AMD64], **mistake(tenant, git_server))
    status = build.failed(reason)
    message = condition(status, "Ready")["message"]
    assert [word for word in words if word not in message] == [], message
    assert took(build, status) < SOON * slowness()
    assert status["run"]["resolve" if "resolve" in status["run"] else "platforms"]
    attempts = [entry.get("attempt", 0) for entry in status["run"]["platforms"]]
    # A Secret may come a moment after the build.
    most = 2 if reason == "SecretNotFound" else 1
    assert max(attempts, default=1) <= most, "nobody asks twice for what the user has to mend"

    def saying_it(notes: list[str]) -> list[str]:
        return [note for note in notes if all(word in note for word in words)]

    told = [event["note"] for event in build.events(until=saying_it) if event["reason"] == reason]
    assert len(saying_it(told)) == 1, told
    if name == "failing RUN":
        assert {"step one", "the reason"} <= set(platform(status, AMD64)["logTail"].splitlines())
    assert "image" not in status
    assert build.columns()["REASON"] == reason


def took(build: Build, status: Status) -> float:
    """Return the seconds from the creation of the build to the end of its run, but for those its pods took to start."""
    created = datetime.fromisoformat(build.get()["metadata"]["creationTimestamp"])
    starting = sum(map(start_of, build.pods()), timedelta())
    return (datetime.fromisoformat(status["run"]["finishedAt"]) - created - starting).total_seconds()


def start_of(pod: dict[str, Any]) -> timedelta:
    """Return how long a node took to start the step of a pod: that depends on what else the node does."""
    (state,) = (entry["state"] for entry in pod["status"]["containerStatuses"] if entry["name"] == "step")
    (entry,) = state.values()
    started, created = entry.get("startedAt"), pod["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(started) - datetime.fromisoformat(created) if started else timedelta()


def test_others_are_served_meanwhile(tenant: Tenant, git_server: GitServer) -> None:
    # Without an end of its own, it is tried again and again, and says so.
    waiting = {**unreachable_registry(tenant, git_server), "retries": 10}
    stuck = tenant.build("stuck", platforms=[AMD64], **waiting)
    broken = tenant.build("broken", platforms=[AMD64], source=inline("FROM\n"))
    good = tenant.build("good", platforms=[AMD64])
    good.succeeded()
    broken.failed("DockerfileInvalid")
    status = stuck.until(lambda status: condition(status, "Ready").get("reason") == "Retrying")
    assert condition(status, "Ready")["status"] == "Unknown"
    assert condition(status, "Reconciling")["status"] == "True"
    assert "next try at" in condition(status, "Ready")["message"]


def test_capitals_in_the_image_are_refused_at_once(tenant: Tenant) -> None:
    with pytest.raises(CommandError, match="in lower case without tag or digest, such as registry"):
        tenant.build(output={"image": "registry.example.com/Team/App"})
    assert tenant.list(RESOURCE) == []


def test_pod_security_that_forbids_builders_is_said(tenant: Tenant) -> None:
    tenant.target.kubectl("label", "namespace", tenant.namespace, "pod-security.kubernetes.io/enforce=restricted")
    build = tenant.build(platforms=[AMD64])
    status = build.until(lambda status: condition(status, "Ready").get("reason") == "PodRejected")
    assert condition(status, "Ready")["status"] == "False"
    assert condition(status, "Stalled")["status"] == "True"
    assert 'violates PodSecurity "restricted' in condition(status, "Ready")["message"]
    assert "-amd64-1: " in condition(status, "Ready")["message"], "it names the pod"
