"""Every example is applied, and what it builds is published.

The hosts in the examples are nobody's. Here they stand for

| in the example                            | in the test                                                            |
|-------------------------------------------|------------------------------------------------------------------------|
| registry.example.com                      | a registry, with a password where the build names Secrets              |
| https://git.example.com/team-a/NAME.git   | a repository of the git server, private where the build names a Secret |
| ssh://git@git.example.com/team-a/NAME.git | a repository of the ssh server                                         |
| https://files.example.com/NAME.tar.gz     | an archive with the folder NAME, and its checksum                      |
| a digest or checksum of nothing (e3b0c…)  | that of what is there                                                  |

All of them hold the same files; the Secrets that the examples' READMEs make are there.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.target import Target
from multiarchbuild.api.spec import PARENT_SCHEME
from tests.support import source_controller, ssh, watch
from tests.support.artifacts import CONTENT, Registry, sha256, tar
from tests.support.git import PASSWORD, GitServer
from tests.support.images import docker_config
from tests.support.signing import key_pair
from tests.support.tenant import RESOURCE, Status, Tenant, condition

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = sorted({file.relative_to(EXAMPLES).parts[0] for file in EXAMPLES.rglob("*.yaml")})
NOT_BUILT = {
    "node": "make demo builds it, with what it needs of npm's registry",
}
"""Examples that are applied, and built elsewhere."""

_DOCKERFILE = "FROM busybox:1.36\nCOPY hello.txt /\n"
_FILES = {"Dockerfile": _DOCKERFILE, "hello.txt": "hello\n"}
FILES = {**_FILES, **{f"app/{name}": text for name, text in _FILES.items()}}
NOTHING = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ARCHIVE = "hello-1.0.0"
LONGEST = 1500
"""Seconds that all of them may take: as many as a namespace may build at a time, one after the other."""


@dataclass(frozen=True)
class Scene:
    """What the examples name, made for one namespace."""

    tenant: Tenant
    git: GitServer
    ssh: ssh.SshServer

    def open(self) -> "Scene":
        """Make it all, and return itself."""
        tenant, facts = self.tenant, self.tenant.target.facts
        for server in (self.git, self.ssh):
            for name in ("hello", "hello-node", "private"):
                server.repository(self._name(name)).commit(FILES)
        assert facts.secure_registry, "examples/oci needs a registry with a password"
        secure = facts.secure_registry
        tenant.secret("git-credentials", "kubernetes.io/basic-auth", username="reader", password=PASSWORD)
        tenant.secret("files-credentials", "kubernetes.io/basic-auth", username="reader", password=PASSWORD)
        key = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "deploy-key"},
            "stringData": self.ssh.secret(),
        }
        tenant.apply({**key, "type": "kubernetes.io/ssh-auth"})
        config = {".dockerconfigjson": docker_config(secure)}
        registry = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry-credentials"}}
        tenant.apply({**registry, "type": "kubernetes.io/dockerconfigjson", "stringData": config})
        cosign = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cosign-key"}}
        tenant.apply({**cosign, "stringData": key_pair().secret()})
        basic = base64.b64encode(f"{secure.user}:{secure.password}".encode()).decode()
        pushed = Registry(secure.host, f"Basic {basic}", secure.ca)
        pushed.push(f"{tenant.namespace}/hello-source", "main", (CONTENT, tar(FILES)))
        tenant.images.copy(f"{facts.registry}/library/busybox:1.36", f"{secure.host}/{tenant.namespace}/base:1")
        return self

    def localised(self, document: dict[str, Any], folder: str) -> dict[str, Any]:
        """Return a build of an example as it can be built here, beside those of other folders."""
        document["metadata"]["name"] = f"{folder}-{document['metadata']['name']}"
        namespace, facts = self.tenant.namespace, self.tenant.target.facts
        document["metadata"].pop("namespace", None)
        spec = document["spec"]
        # Nothing of this has to last, and the examples say nothing about it.
        spec.setdefault("cache", {"mode": "Disabled"})
        secrets = bool(spec["output"].get("secretRefs"))
        assert facts.secure_registry
        host = facts.secure_registry.host if secrets else facts.registry
        text = json.dumps(document)
        for given in ("registry.example.com/team-a", "${registry}"):
            text = text.replace(given, f"{host}/{namespace}")
        here: dict[str, Any] = json.loads(text)
        if git := here["spec"]["source"].get("git"):
            git["url"] = self._repository(git["url"], private="secretRef" in git)
        if http := here["spec"]["source"].get("http"):
            http |= dict(zip(("url", "checksum"), self._archive(private="secretRef" in http), strict=True))
        for name, value in here["spec"].get("build", {}).get("contexts", {}).items():
            here["spec"]["build"]["contexts"][name] = self._context(value, folder)
        return here

    def _context(self, value: str, folder: str) -> str:
        if value.startswith(PARENT_SCHEME):
            return value.replace(PARENT_SCHEME, f"{PARENT_SCHEME}{folder}-")
        if value.startswith("https://files."):
            return self._archive(private=False)[0]
        if value.startswith("https://git."):
            url, _, ref = value.partition("#")
            return f"{self._repository(url, private=False)}#{ref}"
        name = value.removeprefix("docker-image://").partition("@")[0]
        return value.replace(NOTHING, self.tenant.images.digest(f"{name}:1"))

    def _repository(self, url: str, *, private: bool) -> str:
        name = self._name(url.rpartition("/")[2].removesuffix(".git"))
        if url.startswith("ssh://"):
            return f"ssh://root@ssh.{ssh.NAMESPACE}.svc/srv/git/{name}"
        return f"http://git.mab-test-git.svc/{'private' if private else 'open'}/{name}"

    def _archive(self, *, private: bool) -> tuple[str, str]:
        content = tar({f"{ARCHIVE}/{name}": text for name, text in FILES.items()})
        return self.git.file(f"{self.tenant.namespace}/{ARCHIVE}.tar.gz", content, private=private), sha256(content)

    def _name(self, name: str) -> str:
        # BuildKit tells a repository from a file by the end of its URL.
        return f"{self.tenant.namespace}-{name}.git"


def documents(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the builds of an example, and the objects of Flux that stand beside them."""
    for file in sorted((EXAMPLES / folder).rglob("*.yaml")):
        found = [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]
        if any(document["kind"] == "MultiArchBuild" for document in found):
            yield from found


def test_every_example_says_what_it_is() -> None:
    assert [folder for folder in FOLDERS if not (EXAMPLES / folder / "README.md").is_file()] == []
    assert NOT_BUILT.keys() <= set(FOLDERS)


def all_built(tenant: Tenant, names: set[str]) -> dict[str, Status]:
    """Wait until each of these builds has ended a run; return how each of them stood then, by name.

    One watch for all: a build that waits for its turn, or for the image of another, says nothing for as long as those
    take that are before it.
    """
    ended: dict[str, Status] = {}

    def found(objects: watch.Objects) -> dict[str, Status] | None:
        for entry in objects.values():
            status = entry.get("status", {})
            if status.get("observedGeneration") == entry["metadata"]["generation"] and "result" in status.get(
                "run", {}
            ):
                ended.setdefault(entry["metadata"]["name"], dict(status))
        return ended if names <= ended.keys() else None

    what = (RESOURCE, "-n", tenant.namespace)
    return watch.wait_for(tenant.target, *what, until=found, longest=LONGEST, why="all examples are built")


@pytest.mark.timeout(LONGEST + 300)
def test_every_example_is_applied_and_built(target: Target, tenant: Tenant, git_server: GitServer) -> None:
    source_controller.install(target)
    scene = Scene(tenant, git_server, ssh.start(target)).open()
    wanted: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for document in documents(folder):
            name = document["metadata"]["name"]
            if document["kind"] != "MultiArchBuild":
                tenant.apply(document)
                source_controller.store(tenant, git_server, "gitrepositories", name, FILES, "c" * 40)
                continue
            here = scene.localised(document, folder)
            if folder in NOT_BUILT:
                here["spec"]["suspend"] = True
            else:
                wanted[f"{folder}-{name}"] = here["spec"]["platforms"]
            tenant.apply(here)
    assert wanted
    statuses = all_built(tenant, set(wanted))
    failed = {name: statuses[name]["run"] for name in wanted if statuses[name]["run"]["result"] != "Succeeded"}
    assert not failed, json.dumps(failed, indent=1)
    for name, platforms in wanted.items():
        assert condition(statuses[name], "Ready")["status"] == "True", name
        assert [image["platform"] for image in statuses[name]["image"]["platforms"]] == platforms
