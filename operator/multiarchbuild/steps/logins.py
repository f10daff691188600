"""What buildctl logs in with, for one build: BuildKit asks it by the host of a registry, not by the repository."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from multiarchbuild.oci.credentials import Credentials, Keychain
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.names import Repository, canonical_host

from .credentials import registry_credentials
from .errors import StepError
from .log import say
from .mounts import Mounts
from .registries import client, connections_for
from .token_relay import Registries, Relay
from .trust import ca_file, registry_cas

_HELPER = "multiarchbuild"
_LOGINS = "MULTIARCHBUILD_LOGINS"
_PROGRAM = f"""\
#!/bin/sh
read -r host
exec cat "${_LOGINS}/$host"
"""
"""A credential helper, of which only `get` is called: the host on standard input, the login as JSON on the output."""
_RENEWAL = 20.0
"""Seconds between two looks whether a login is to be renewed."""
_PARALLEL = 8
_PATIENCE = 4.0
"""Seconds for a registry to connect, and again to say how it wants to be logged in to."""


def with_token_server(mounts: Mounts, keychain: Keychain) -> frozenset[str]:
    """Return the registries whose token server is asked for each repository: the others have HTTP basic.

    Only those count that have logins by path, or such that are good for a while.
    """
    hosts = sorted({*keychain.hosts_by_path(), *keychain.hosts_by_exchange()})
    # Side by side: a Secret may name registries that this build does not use, and that nobody here reaches.
    with ThreadPoolExecutor(_PARALLEL) as threads:
        basic = threads.map(lambda host: _is_basic(mounts, host), hosts)
        return frozenset(host for host, is_basic in zip(hosts, basic, strict=True) if not is_basic)


def _is_basic(mounts: Mounts, host: str) -> bool:
    """Return whether a registry takes user and password themselves; one that does not answer is asked by BuildKit."""
    try:
        # The name of a repository is not part of this request, and it is made without a login.
        schemes = client(mounts, Keychain(), f"{host}/any", connect=_PATIENCE, read=_PATIENCE).schemes()
    except RegistryError as error:
        say(f"cannot ask {host} how it wants to be logged in to: {error}")
        return False
    return "basic" in schemes and "bearer" not in schemes


def conflicting_cache(mounts: Mounts, keychain: Keychain, ref: str, relayed: frozenset[str]) -> str:
    """Return why the cache at `ref` can't be used with the login of output.image, or nothing where it can."""
    image, cache = Repository.parse(mounts.inputs.spec.output.image), Repository.parse(ref)
    if image.registry != cache.registry or cache.registry in relayed:
        return ""
    own, other = (registry_credentials(mounts, keychain, each) for each in (image, cache))
    if other is None or other == own:
        return ""
    return (
        f"The cache at {cache} was not used: its login is not that of output.image, and {cache.registry} "
        "takes user and password without a token server: there BuildKit can use only one login. Use one login for "
        "both, or set cache.repository to another registry."
    )


@contextmanager
def environment(
    mounts: Mounts, keychain: Keychain, repositories: Sequence[Repository], relayed: frozenset[str]
) -> Iterator[dict[str, str]]:
    """Yield the environment of a buildctl that builds with `repositories`, while the block runs.

    Of the registries in `relayed` it gets the login of each repository; of another one it has one login for all.
    """
    folder = mounts.work / "docker"
    folder.mkdir()
    env = {**os.environ, "HOME": str(mounts.work), "DOCKER_CONFIG": str(folder)}
    helped = [host for host in keychain.hosts_by_exchange() if host not in relayed]
    with ExitStack() as stack:
        given: dict[str, Credentials] = {}
        if relayed:
            relay = Relay(_registries(mounts, keychain), folder)
            stack.enter_context(relay.serving())
            given = {host: relay.placeholder(host) for host in relayed}
            env |= relay.environment
        else:
            env |= _trust(mounts)
        if helped:
            env |= stack.enter_context(
                _helper(lambda each: registry_credentials(mounts, keychain, each), repositories, helped, folder)
            )
        helpers = dict.fromkeys(helped, _HELPER)
        (folder / "config.json").write_text(keychain.docker_config(repositories, given, helpers))
        yield env


def _trust(mounts: Mounts) -> dict[str, str]:
    """Return how buildctl verifies the token servers that it asks itself."""
    env = {"SSL_CERT_FILE": trusted} if (trusted := ca_file(mounts)) else {}
    if registry_cas(mounts):
        # buildctl has one trust for all of them, unless buildkitd is left to do it.
        env["BUILDKIT_NO_CLIENT_TOKEN"] = "true"  # noqa: S105 - a switch
    return env


def _registries(mounts: Mounts, keychain: Keychain) -> Registries:
    plain = {canonical_host(registry.host) for registry in mounts.inputs.registries if registry.plain_http}
    return Registries(
        find=lambda repository: registry_credentials(mounts, keychain, repository),
        pool=lambda host: connections_for(mounts, canonical_host(host)),
        is_plain=lambda host: canonical_host(host) in plain,
    )


@contextmanager
def _helper(
    find: Callable[[Repository], Credentials | None],
    repositories: Sequence[Repository],
    hosts: Sequence[str],
    folder: Path,
) -> Iterator[dict[str, str]]:
    """Keep the logins of registries with HTTP basic as they are by now, where docker's credential helper finds them.

    BuildKit asks buildctl anew after a 401, and buildctl its helper when what it knows is five minutes old.
    """
    programs, logins = folder / "bin", folder / "logins"
    programs.mkdir()
    logins.mkdir()
    program = programs / f"docker-credential-{_HELPER}"
    program.write_text(_PROGRAM)
    program.chmod(0o700)
    named = {repository.registry: repository for repository in reversed(repositories)}

    def write() -> None:
        for host in hosts:
            if login := find(named.get(host, Repository(host, ""))):
                text = json.dumps({"ServerURL": host, "Username": login.username, "Secret": login.password})
                file = logins / host
                if not file.exists() or file.read_text() != text:
                    # Renamed into place: somebody may read it.
                    new = logins / f".{host}"
                    new.touch(mode=0o600)
                    new.write_text(text)
                    new.rename(file)

    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEWAL):
            try:
                write()
            except StepError as error:
                say(error.message)

    write()
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield {_LOGINS: str(logins), "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"}
    finally:
        done.set()
        thread.join()
