"""A real API server, a namespace for each test, and operators as processes of their own."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from multiarchbuild.api.crd import crd
from multiarchbuild.controller.kube import Kube, load_configuration
from tests.cluster import lifecycle
from tests.support.crds import await_established
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
"""Seconds after which a test gives up. It says nothing about how fast anything has to be."""

T = TypeVar("T")


async def eventually(what: str, check: Callable[[], Awaitable[T]], seconds: float = PATIENCE) -> T:
    """Return the first true value that `check` gives."""
    end = time.monotonic() + seconds
    while True:
        value = await check()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.05)


def tool(name: str) -> str:
    """Return the path of a program: of this checkout's cluster, else of the PATH."""
    found = shutil.which(name, path=f"{lifecycle.find().bin}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is needed: `make cluster` provides it"
    return found


@dataclass(frozen=True)
class Kubectl:
    """kubectl with a kubeconfig."""

    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        command = [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
            # Nothing was asked yet: on a busy machine ten seconds, which kubectl waits, are too few for an API server.
            if "TLS handshake timeout" not in done.stderr or time.monotonic() > end:
                break
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def annotate(self, kind: str, namespace: str, name: str, key: str, value: str) -> None:
        self("annotate", kind, name, "-n", namespace, "--overwrite", f"{key}={value}")


@pytest.fixture(scope="session")
def kubeconfig(api_server: Path) -> Path:
    """An API server on which no other operator acts."""
    return api_server


@pytest.fixture(scope="session")
def kubectl(kubeconfig: Path) -> Kubectl:
    """Return kubectl as administrator, with the CRD in place."""
    run = Kubectl(kubeconfig)
    run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(crd()))
    await_established(run, "crd", crd()["metadata"]["name"])
    return run


@contextmanager
def new_namespace(kubectl: Kubectl, prefix: str = "controller") -> Iterator[str]:
    """Make a namespace; in the end take it away, with what is in it."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    # Until it has one, no pod is taken, whatever else is wrong with it.
    kubectl("wait", "serviceaccount/default", "-n", name, "--for=create", f"--timeout={PATIENCE:.0f}s")
    try:
        yield name
    finally:
        kubectl("delete", "multiarchbuilds,pods,configmaps", "--all", "--force", "-n", name)
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace for one test."""
    with new_namespace(kubectl) as name:
        yield name


@pytest.fixture
async def kube(kubeconfig: Path, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kube]:
    """The operator's own client, as administrator."""
    del kubectl  # for the CRD
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with Kube(await load_configuration()) as client:
        yield client


TOY = ("tests.controller.toy",)
REAL = ("multiarchbuild", "run")


@dataclass
class Operator:
    """An operator, with the rules of `toy` unless it is the real one."""

    kubeconfig: Path
    arguments: tuple[str, ...]
    log: Path
    program: tuple[str, ...] = TOY
    pod: str = ""
    """Name of the pod that it believes to run in."""
    port: int = 0
    process: "subprocess.Popen[bytes]" = field(init=False)

    def start(self) -> "Operator":
        self.port = free_port()
        command = [sys.executable, "-m", *self.program, *self.arguments]
        command += ["--log-format", "json", "--listen", f"127.0.0.1:{self.port}"]
        environment = os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}",
            "POD_NAME": self.pod,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=environment, cwd=ROOT)
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of an endpoint; 0 when nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, series: str) -> float:
        lines = self.get("/metrics")[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " ")), 0.0)

    async def leading(self) -> "Operator":
        """Wait until it watches, as the leader."""

        async def check() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            status, text = self.get("/readyz")
            return status == 200 and "[+] watches synced" in text

        await eventually(f"leading, see {self.log}", check)
        return self

    async def standing_by(self) -> "Operator":
        """Wait until it is ready, but does not watch."""

        async def check() -> bool:
            status, text = self.get("/readyz")
            return status == 200 and "watches" not in text

        await eventually(f"standing by, see {self.log}", check)
        return self

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - started

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def lines(self, **fields: str) -> list[dict[str, Any]]:
        """Return the log lines that have these fields."""
        entries = [json.loads(line) for line in self.log.read_text().split("\n")[:-1] if line.startswith("{")]
        return [entry for entry in entries if fields.items() <= entry.items()]


OperatorFactory = Callable[..., Operator]


@pytest.fixture
def operator(kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[OperatorFactory]:
    """Makes operators that serve, and hold their Lease in, the namespace of the test."""
    operators: list[Operator] = []
    local = in_namespace(kubeconfig, namespace, tmp_path / "kubeconfig")

    def make(*arguments: str, kubeconfig: Path = local, program: tuple[str, ...] = TOY, pod: str = "") -> Operator:
        number = len(operators)
        arguments = arguments or ("--namespace", namespace)
        operators.append(Operator(kubeconfig, arguments, tmp_path / f"operator-{number}.log", program, pod).start())
        return operators[-1]

    yield make
    for each in operators:
        if each.process.poll() is None:
            each.kill()
    # Another test's operator that serves all namespaces would wait until this one has been gone for a minute.
    command = [tool("kubectl"), f"--kubeconfig={local}", "delete", "lease", "multiarchbuild", "--ignore-not-found"]
    subprocess.run(command, check=True, capture_output=True)


def in_namespace(kubeconfig: Path, namespace: str, copy: Path, **user: str) -> Path:
    """Write a copy of the kubeconfig whose context has this namespace, and this user where one is given."""
    text = subprocess.run(
        [tool("kubectl"), f"--kubeconfig={kubeconfig}", "config", "view", "--raw", "--minify", "-ojson"],
        capture_output=True,
        check=True,
    ).stdout
    config = json.loads(text)
    config["contexts"][0]["context"]["namespace"] = namespace
    if user:
        config["users"][0]["user"] = user
    copy.write_text(json.dumps(config))
    return copy


def build(namespace: str, name: str = "app", **output: Any) -> str:
    """Return a manifest of a MultiArchBuild."""
    return json.dumps(
        {
            "apiVersion": "multiarch.build/v1alpha1",
            "kind": "MultiArchBuild",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "platforms": ["linux/amd64"],
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": f"registry.example.com/{name}", **output},
            },
        }
    )


ENDED = json.dumps(
    {
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "step",
                    "image": "toy",
                    "imageID": "toy",
                    "ready": False,
                    "restartCount": 0,
                    "state": {
                        "terminated": {
                            "exitCode": 0,
                            "reason": "Completed",
                            "startedAt": "2026-01-01T00:00:00Z",
                            "finishedAt": "2026-01-01T00:00:01Z",
                        }
                    },
                }
            ],
        }
    }
)


def end_step(kubectl: Kubectl, namespace: str, pod: str) -> None:
    """Say in the pod's status, as kubelet would, that the step has ended."""
    kubectl("patch", "pod", pod, "-n", namespace, "--subresource=status", "--type=merge", "-p", ENDED)
