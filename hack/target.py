"""A cluster to work with, as programs see it: kubectl, helm, crane and buildctl with the right environment."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.errors import NotFoundError, RegistryError
from multiarchbuild.oci.index import Manifest
from multiarchbuild.oci.names import Repository
from tests.cluster import facts, fixture, lifecycle
from tests.cluster.errors import ClusterError
from tests.cluster.facts import Facts

from . import registry

_GET = {"kubectl": "https://kubernetes.io/docs/tasks/tools/", "helm": "https://helm.sh/docs/intro/install/"}
"""Where to get the programs that people need for the demo."""


class CommandError(Exception):
    """A program failed; the message holds what it said."""


@dataclass(frozen=True)
class Target:
    """One cluster and its programs."""

    facts: Facts

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 600, stderr: bool = False) -> str:
        """Return what a program printed, with its standard error after it where `stderr` says so.

        Raises:
            CommandError: It ended with another exit code than 0, or took longer than `timeout` seconds.
        """
        command = " ".join(argv[:4])
        try:
            done = subprocess.run(
                argv, input=stdin, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except FileNotFoundError as error:
            where = _GET.get(argv[0], "")
            raise CommandError(f"{argv[0]} is not on PATH: install it{f' ({where})' if where else ''}") from error
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{command} … took longer than {timeout:.0f} s") from error
        if done.returncode:
            raise CommandError(f"{command} … failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout + (done.stderr if stderr else "")

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Return what kubectl printed."""
        return self.run("kubectl", *args, stdin=stdin)

    def crane(self, *args: str) -> str:
        """Return what crane printed."""
        insecure = ["--insecure"] if self.facts.registry_insecure else []
        return self.run("crane", args[0], *insecure, *args[1:])

    def pulled(self, image: str) -> str:
        """Return what nodes call an image of the registry."""
        own, theirs = self.facts.registry, self.facts.registry_of_nodes
        return f"{theirs}{image.removeprefix(own)}" if theirs and image.startswith(f"{own}/") else image

    def manifest(self, image: str) -> Manifest | None:
        """Return the manifest or index of an image in the registry, or None where it has none.

        Raises:
            CommandError: the registry does not answer, or refuses.
        """
        with self._reached(image) as (name, reference):
            client = Client(Repository.parse(name), pool(None), plain_http=self.facts.registry_insecure)
            try:
                return client.resolve(reference)
            except NotFoundError:
                return None
            except RegistryError as error:
                raise CommandError(str(error)) from error

    @contextmanager
    def _reached(self, image: str) -> Iterator[tuple[str, str]]:
        """Yield the repository as this machine reaches it, and the tag or digest, of an image."""
        name, _, reference = image.partition("@") if "@" in image else image.rpartition(":")
        if not self.facts.registry_forwarded:
            yield name, reference
            return
        with registry.forwarded(self.environment) as address:
            if not address:
                raise CommandError(f"kubectl port-forward to {self.facts.registry} failed")
            yield f"{address}{name.removeprefix(self.facts.registry)}", reference

    @property
    def nodes(self) -> dict[str, str]:
        """The architecture of each node that the cluster has now, by name."""
        nodes = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return {node["metadata"]["name"]: node["metadata"]["labels"]["kubernetes.io/arch"] for node in nodes}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the programs."""
        path = f"{self.facts.bin}:{os.environ['PATH']}" if self.facts.bin else os.environ["PATH"]
        return {**os.environ, "KUBECONFIG": self.facts.kubeconfig, "PATH": path}

    @property
    def registries(self) -> list[dict[str, Any]]:
        """How builds reach this cluster's registries, as `registries` of the operator's policy."""
        return [*facts.registries(self.facts.buildkitd_toml), *_more_registries(os.environ)]

    def plain_http(self, repository: str) -> bool:
        """Return whether the registry of a repository is known to speak HTTP without TLS."""
        host = repository.partition("/")[0]
        return any(entry["host"] == host and entry.get("plainHttp") for entry in self.registries)


def _more_registries(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return `registries` of the policy in the YAML file that MAB_POLICY names: mirrors, CAs."""
    path = environ.get("MAB_POLICY")
    if not path:
        return []
    try:
        return list((yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("registries", ()))
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise CommandError(f"MAB_POLICY={path} cannot be used: {error}") from error


def from_environment(*, unnamed: Callable[[str], Target] | None = None) -> Target:
    """Return the cluster that KUBECONFIG names (see tests/cluster/fixture.py), or the local one.

    Where MAB_TEST_REGISTRY names no registry for it, `unnamed` makes the target of its kubeconfig.

    Raises:
        CommandError: There is none.
    """
    layout = lifecycle.find()
    try:
        if fixture.is_external(os.environ, layout):
            if unnamed and not os.environ.get("MAB_TEST_REGISTRY"):
                return unnamed(os.environ["KUBECONFIG"])
            return Target(fixture.external(os.environ).facts)
        return Target(facts.read(layout.facts))
    except ClusterError as error:
        raise CommandError(str(error)) from error
    except FileNotFoundError as error:
        raise CommandError("there is no local cluster: run make cluster, or name another with KUBECONFIG") from error


def with_registry(kubeconfig: str) -> Target:
    """Return a cluster whose registry is one in itself, which is started where it does not run.

    Raises:
        CommandError: it does not start.
    """
    target = own_registry(kubeconfig)
    start_registry(target)
    return target


def own_registry(kubeconfig: str) -> Target:
    """Return a cluster whose registry is one in itself, which `start_registry` starts."""
    known = Facts(
        instance="",
        kubeconfig=kubeconfig,
        bin="",
        registry=registry.FOR_PODS,
        registry_insecure=True,
        secure_registry=None,
        buildkitd_toml=f'[registry."{registry.FOR_PODS}"]\n  http = true\n',
        images={},
        registry_of_nodes=registry.FOR_NODES,
        registry_forwarded=True,
    )
    return Target(known)


def start_registry(target: Target) -> None:
    """Start the registry in the cluster where it does not run.

    Raises:
        CommandError: it does not start.
    """
    print(f"==> a registry in namespace {registry.NAMESPACE}, as MAB_TEST_REGISTRY names none", flush=True)
    for document in registry.manifests():  # what nodes pull from needs what pods push to
        target.kubectl("apply", "-f", "-", stdin=json.dumps(document))
        if document["kind"] in {"Deployment", "DaemonSet"}:
            workload = f"{document['kind']}/{document['metadata']['name']}"
            target.kubectl("rollout", "status", workload, "--namespace", registry.NAMESPACE, "--timeout=300s")


def finish(work: Callable[[Target], None], *, bring_registry: bool = False) -> int:
    """Do `work` with the cluster that the environment names; return the exit code, and say why where it is not 0."""
    try:
        work(from_environment(unnamed=with_registry if bring_registry else None))
    except CommandError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
