"""The steps as they run in a pod, against real registries, a real buildkitd and a real git server on this machine."""

import hashlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from http.server import ThreadingHTTPServer
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild import steps
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Built, Failure, Published, Pushed, PushedImage, Resolved, Source, load
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.names import Repository
from multiarchbuild.plan.actions import EnsureInputs
from multiarchbuild.plan.policy import SBOM_IMAGE, Policy
from multiarchbuild.pods import render, tokens
from multiarchbuild.pods.builder import REGISTRY_CA
from tests.cluster import build, pki
from tests.cluster.build import packages
from tests.cluster.layout import cache_directory
from tests.steps.servers import FaultyRegistry, GitServer, listens, registry_config, running, wait
from tests.support.ports import free_port

USER, PASSWORD = "ci", "secret"
_SOCKET_PATH = 107
"""Bytes of the path of a socket at most (unix(7)): a longer one looks as if nobody listened there."""


@dataclass(frozen=True)
class Services:
    """What runs for the tests."""

    registry: str
    """Plain HTTP, no password; docker.io is mirrored to it."""
    secure: str
    """TLS by a CA of its own, with a password."""
    ca: str
    silent: str
    """Accepts connections and never answers."""
    socket: Path
    git: GitServer
    others: tuple[dict[str, Any], ...] = ()
    """Further registries in the policy."""
    proxy: dict[str, Any] = field(default_factory=dict)
    """Proxy in the policy."""
    identities: dict[str, Any] = field(default_factory=dict)
    """Providers of identities in the policy."""
    keyless: dict[str, Any] = field(default_factory=dict)
    """Who certifies signatures in the policy."""

    def client(self, name: str) -> Client:
        """Return a client for a repository of the open registry."""
        return Client(Repository.parse(f"{self.registry}/{name}"), pool(None), plain_http=True)

    def secure_client(self, name: str, ca_file: Path) -> Client:
        """Return a client for a repository of the secure registry."""
        ca_file.write_text(self.ca)
        repository = Repository.parse(f"{self.secure}/{name}")
        return Client(repository, pool(str(ca_file)), Credentials(USER, PASSWORD))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    if os.geteuid() != 0:
        pytest.skip("buildkitd without a pod around it needs root")
    packages.ensure(("git", "git-lfs", "openssh-client", "openssh-server"))
    built = build.ensure(cache_directory(os.environ))
    os.environ["PATH"] = f"{built.programs['buildctl'].parent}:{os.environ['PATH']}"
    folder = tmp_path_factory.mktemp("services")
    built.images.copy_to(folder / "open")
    authority = pki.Authority(folder, "ca")
    pair = authority.issue("registry", common_name="localhost", hosts=("localhost", "127.0.0.1", "secure.test"))
    (folder / "htpasswd").write_text(pki.htpasswd_line(USER, PASSWORD))
    ports = [free_port() for _ in range(2)]
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        config = json.loads(registry_config(ports[0], folder / "open"))
        config["storage"]["delete"] = {"enabled": True}  # as cleanups do
        (folder / "open.json").write_text(json.dumps(config))
        (folder / "secure.json").write_text(
            registry_config(
                ports[1],
                folder / "secure",
                http={"tls": {"certificate": str(pair.cert), "key": str(pair.key)}},
                auth={"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
            )
        )
        for name, port in zip(("open", "secure"), ports, strict=True):
            program = str(built.programs["registry"])
            stack.enter_context(running(program, "serve", str(folder / f"{name}.json"), log=folder / f"{name}.log"))
            wait(lambda port=port: listens(port))  # type: ignore[misc]
        git = GitServer(folder / "git")
        git.root.mkdir()
        server = ThreadingHTTPServer(("127.0.0.1", 0), git.handler())
        git.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        registry, secure = f"127.0.0.1:{ports[0]}", f"localhost:{ports[1]}"
        found = Services(
            registry,
            secure,
            Path(authority.pair.cert).read_text(),
            f"127.0.0.1:{silent.getsockname()[1]}",
            folder / "buildkitd.sock",
            git,
        )
        start_buildkitd(stack, str(built.programs["buildkitd"]), folder, found)
        yield found


def start_buildkitd(stack: ExitStack, program: str, folder: Path, services: Services) -> None:
    """Run a buildkitd with the configuration of the policy until the stack is left."""
    build_ = MultiArchBuild.model_validate({"metadata": _metadata(), "spec": _spec(services, "none")})
    data = render(EnsureInputs("in", "run1"), build_, _policy(services))["data"]
    for key, text in data.items():
        if key.endswith(".ca.crt"):
            (folder / key).write_text(text)
    (folder / "buildkitd.toml").write_text(data["buildkitd.toml"].replace(REGISTRY_CA, str(folder)))
    (folder / "trust").mkdir()
    (folder / "trust" / "ca.crt").write_text(services.ca)
    os.environ["SSL_CERT_DIR"] = f"/etc/ssl/certs:{folder / 'trust'}"
    command = [
        *(program, "--config", str(folder / "buildkitd.toml"), "--root", str(folder / "buildkit")),
        *("--addr", f"unix://{services.socket}", "--oci-worker-snapshotter=overlayfs"),
        "--containerd-worker=false",
    ]
    stack.enter_context(running(*command, log=folder / "buildkitd.log"))
    os.environ.pop("SSL_CERT_DIR")
    wait(services.socket.exists)


def _policy(services: Services) -> Policy:
    registries = [
        {"host": services.registry, "plainHttp": True},
        {"host": services.secure},
        {"host": "docker.io", "mirrors": [services.registry]},
        *services.others,
    ]
    return Policy.model_validate(
        {
            "registries": registries,
            "caBundle": services.ca,
            "proxy": services.proxy,
            "identities": services.identities,
            "tenants": [{"namespaces": ["*"], "signing": {"keyless": services.keyless}}] if services.keyless else [],
        }
    )


def _metadata() -> dict[str, Any]:
    return {
        "name": "app",
        "namespace": "team",
        "uid": "u1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }


def _spec(services: Services, image: str) -> dict[str, Any]:
    return {
        "platforms": ["linux/amd64"],
        "source": {"inline": {"files": {"Dockerfile": "FROM busybox:1.36\n"}}},
        "output": {"image": f"{services.registry}/team/{image}"},
    }


def _hand_over_late(file: Path, text: str, meanwhile: Callable[[], None]) -> None:
    """Make `file` one that is empty when it is read first; `meanwhile` is called before it is read again."""
    os.mkfifo(file)
    later = file.with_name("later")
    later.write_text(text)

    def write() -> None:
        with file.open("w"):  # opened once the step reads, which gets nothing when it is closed
            try:
                meanwhile()
            finally:
                later.replace(file)

    threading.Thread(target=write, daemon=True).start()


Outcome = Resolved | Built | Published | Failure


@dataclass
class Pod:
    """The mounts of a pod, in a folder, and the step in it."""

    root: Path
    services: Services
    image: str
    spec: dict[str, Any]
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Content of the mounted Secrets, by path below /run/mab."""
    frontend: str = ""
    """`images.frontend` of the operator's policy."""
    sbom: str = SBOM_IMAGE
    """`images.sbom` of it."""
    handed_at: datetime | None = None
    """When the operator hands over what was built, where something is to expire."""

    def run(
        self,
        *arguments: str,
        source: Source | None = None,
        built: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
        records: Sequence[str | None] = (),
    ) -> Outcome:
        """Mount everything anew, run the step, and return the result in its termination message.

        `source`, `built` (digests by platform) and `records` (of them, in the same order) are what the operator hands
        over; `meanwhile` is called when the step waits for `built`, and before it gets it.
        """
        root = self.root / str(len(list(self.root.iterdir())))
        mab = root / "run" / "mab"
        for name in ("inputs", "work", "pod", "buildkit"):
            (mab / name).mkdir(parents=True)
        (root / "dev").mkdir()
        resource = MultiArchBuild.model_validate({"metadata": _metadata(), "spec": self.spec})
        policy = _policy(self.services)
        images = policy.images.model_copy(update={"frontend": self.frontend, "sbom": self.sbom})
        policy = policy.model_copy(update={"images": images})
        for key, text in render(EnsureInputs("in", "run1"), resource, policy)["data"].items():
            (mab / "inputs" / key).write_text(text)
        pushed = tuple(
            PushedImage(platform=platform, digest=digest, record=record)
            for (platform, digest), record in zip_longest((built or {}).items(), records[: len(built or {})])
        )
        (mab / "pod" / "source").write_text(source.model_dump_json(by_alias=True) if source else "")
        text = Pushed(images=pushed, handed_at=self.handed_at).model_dump_json(by_alias=True)
        if meanwhile is None:
            (mab / "pod" / "built").write_text(text)
        else:
            _hand_over_late(mab / "pod" / "built", text, meanwhile)
        own_socket = mab / "buildkit" / "buildkitd.sock"
        assert len(bytes(own_socket)) <= _SOCKET_PATH, f"no program connects to {own_socket}: use `short_path`"
        own_socket.symlink_to(self.services.socket)
        for path, keys in self.secrets.items():
            (mab / path).mkdir(parents=True)
            for key, text in keys.items():
                (mab / path / key).write_text(text)
        services = tokens.arguments(resource, policy, sign=arguments[0] == "publish")
        code = steps.main([*arguments, *services], root=root)
        outcome = load((root / "dev" / "termination-log").read_text())
        assert outcome is not None
        assert code == (1 if isinstance(outcome, Failure) else 0)
        return outcome

    def built(self, *arguments: str, source: Source | None = None) -> Built:
        """Run the build step; it must succeed."""
        outcome = self.run("build", "--platform=linux/amd64", *arguments, source=source)
        assert isinstance(outcome, Built), outcome
        return outcome

    def failed(self, *arguments: str, source: Source | None = None, built: Mapping[str, str] | None = None) -> Failure:
        """Run a step that must fail."""
        outcome = self.run(*arguments, source=source, built=built)
        assert isinstance(outcome, Failure), outcome
        return outcome


Pods = Callable[..., Pod]
Faulty = Callable[..., FaultyRegistry]


@pytest.fixture
def faulty(services: Services) -> Iterator[Faulty]:
    """Start registries that fail as the options say, in front of the real one."""
    with ExitStack() as stack:

        def start(**options: Any) -> FaultyRegistry:
            registry = FaultyRegistry(services.registry, **options)
            stack.enter_context(registry.serving())
            return registry

        yield start


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for the roots of pods: not below tmp_path, which is too long for their sockets in a worker of xdist."""
    with tempfile.TemporaryDirectory(prefix="pods-") as folder:
        yield Path(folder)


@pytest.fixture
def pod(services: Services, request: pytest.FixtureRequest, short_path: Path) -> Pods:
    """Make a pod for a spec, which is given as its differences from one that builds `FROM busybox`."""
    image = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]

    def make(secrets: dict[str, dict[str, str]] | None = None, **parts: Any) -> Pod:
        return Pod(short_path, services, f"team/{image}", {**_spec(services, image), **parts}, secrets or {})

    return make


def docker_config(host: str, user: str, password: str) -> dict[str, str]:
    """Return the content of a Secret of type kubernetes.io/dockerconfigjson."""
    return {".dockerconfigjson": json.dumps({"auths": {host: {"username": user, "password": password}}})}
