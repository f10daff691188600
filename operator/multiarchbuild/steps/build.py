"""The build step: one or more platforms with the buildkitd beside it, pushed by digest."""

import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from multiarchbuild.api.results import Built
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.names import Repository

from . import credentials, source
from .buildctl import command
from .classify import classify
from .daemon import await_daemon
from .errors import push_error
from .log import say
from .mounts import Mounts
from .progress import Progress
from .registries import client
from .trust import registry_ca_file

_CACHE_PATIENCE = 4.0
"""Seconds for the cache's registry to connect, and again to answer; BuildKit itself would wait for it without end."""


def build(mounts: Mounts, platforms: Sequence[str], cache_to: str | None, cache_from: Sequence[str]) -> Built:
    """Build `platforms` and return the digest that was pushed.

    Raises:
        StepError: the source, the Dockerfile, a registry or the builder does not let it.
    """
    spec = mounts.inputs.spec
    keychain = credentials.registry_keychain(mounts)
    secrets, ssh_key = credentials.build_secrets(mounts), credentials.ssh_key(mounts)
    with ThreadPoolExecutor(2) as threads:
        # All of it goes on while the builder starts; what the user has to mend is known before anything is built.
        pushable = threads.submit(_check_push, mounts, keychain)
        caches = threads.submit(_usable_caches, mounts, keychain, [*cache_from, *filter(None, [cache_to])])
        context = source.prepare(mounts, meanwhile=lambda: pushable.result() if pushable.done() else None)
        pushable.result()
        usable = caches.result()
    await_daemon(mounts.socket)
    metadata_file = mounts.work / "metadata.json"
    arguments = command(
        spec,
        context,
        platforms,
        address=f"unix://{mounts.socket}",
        metadata_file=metadata_file,
        cache_to=cache_to if cache_to in usable else None,
        cache_from=[ref for ref in cache_from if ref in usable],
        secrets=secrets,
        ssh_key=ssh_key,
        frontend=mounts.inputs.frontend,
        sbom_generator=mounts.inputs.sbom_generator,
    )
    repositories = [Repository.parse(name) for name in (spec.output.image, *usable)]
    progress = _run(arguments, _environment(mounts, keychain.docker_config(repositories)))
    if not metadata_file.is_file():
        raise classify(spec, progress, mounts.inputs.sbom_generator)
    digest = json.loads(metadata_file.read_bytes())["containerimage.digest"]
    say(f"pushed {spec.output.image}@{digest}; {progress.cache.hits} of {progress.cache.total} steps were cached")
    return Built(digest=digest, cache=progress.cache, source_time=context.time if context.vcs else None)


def _check_push(mounts: Mounts, keychain: Keychain) -> None:
    image = mounts.inputs.spec.output.image
    try:
        client(mounts, keychain, image).check_push()
    except RegistryError as error:
        raise push_error(error, image) from error


def _usable_caches(mounts: Mounts, keychain: Keychain, refs: Sequence[str]) -> set[str]:
    """Return those of `refs` whose registry answers: no failure of a cache is one of the build."""
    image = Repository.parse(mounts.inputs.spec.output.image)
    answers = {image.registry: True}
    for ref in refs:
        registry = Repository.parse(ref).registry
        if registry not in answers:
            try:
                client(mounts, keychain, ref, connect=_CACHE_PATIENCE, read=_CACHE_PATIENCE).check_reachable()
                answers[registry] = True
            except RegistryError as error:
                answers[registry] = False
                say(f"building without the cache at {registry}: {error}")
    return {ref for ref in refs if answers[Repository.parse(ref).registry]}


def _environment(mounts: Mounts, docker_config: str) -> dict[str, str]:
    folder = mounts.work / "docker"
    folder.mkdir()
    (folder / "config.json").write_text(docker_config)
    env = {**os.environ, "HOME": str(mounts.work), "DOCKER_CONFIG": str(folder)}
    # Token servers are asked by buildctl, not by buildkitd.
    if trusted := registry_ca_file(mounts, *(registry.host for registry in mounts.inputs.registries)):
        env["SSL_CERT_FILE"] = trusted
    return env


def _run(arguments: Sequence[str], env: dict[str, str]) -> Progress:
    """Run buildctl and print its log as it comes."""
    progress = Progress()
    with subprocess.Popen(
        arguments, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            for shown in progress.feed(line.rstrip("\n")):
                say(shown)
    return progress
