"""The Secrets of a run, as the kubelet has mounted them. A Secret that does not exist is an empty folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.names import NameRef
from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.credentials import Credentials, InvalidConfigError, Keychain
from multiarchbuild.oci.names import Repository
from multiarchbuild.plan.logins import logins

from .errors import StepError
from .mounts import Mounts
from .ssh import SshCredentials

if TYPE_CHECKING:
    from multiarchbuild.oci.keys import SigningKey

_HTTP_KEYS = "`username` and `password`, or `token`"
_GIT_KEYS = f"{_HTTP_KEYS}, or `bearerToken`"
_DOCKER_CONFIG_KEY = ".dockerconfigjson"
_SSH_KEY = "ssh-privatekey"
_KNOWN_HOSTS = "known_hosts"
_COSIGN_KEY = "cosign.key"
_COSIGN_PASSWORD = "cosign.password"  # noqa: S105 - the name of a Secret's key
_TOKEN_USER = "x-access-token"  # noqa: S105 - what git hosts take as the user beside a token


@dataclass(frozen=True, slots=True)
class BearerToken:
    """What logs in to a git server by `Authorization: Bearer` (RFC 6750), as Flux's GitRepository knows it."""

    value: str = field(repr=False)


def registry_keychain(mounts: Mounts, destination: int | None = None) -> Keychain:
    """Return the credentials in the Secrets of output.secretRefs, or in those of one of output.destinations.

    Raises:
        StepError: a Secret is missing or is not a kubernetes.io/dockerconfigjson.
    """
    configs = []
    folder = paths.DOCKER if destination is None else f"{paths.DESTINATIONS}/{destination}"
    for index, ref in enumerate(_docker_refs(mounts, destination)):
        where = f"{_docker_field(destination)}[{index}]"
        text = _read(mounts, f"{folder}/{index}", _DOCKER_CONFIG_KEY, ref.name, where)
        try:
            Keychain.load([text])
        except InvalidConfigError as error:
            raise _invalid(ref.name, where, f"{_DOCKER_CONFIG_KEY}: {error}") from error
        configs.append(text)
    keychain = Keychain.load(configs)
    if any(logins(mounts.inputs.spec)):
        # Not at the top: most builds have no identity.
        from .identities import exchanges  # noqa: PLC0415

        return keychain.with_exchanges(exchanges(mounts, destination))
    return keychain


def registry_credentials(
    mounts: Mounts, keychain: Keychain, repository: Repository, destination: int | None = None
) -> Credentials | None:
    """Return the credentials for `repository`, or None when there are none; `keychain` is that of `destination`.

    Raises:
        StepError: there are, but they cannot be used, or are in the credential store of another machine.
    """
    refs, host = _docker_refs(mounts, destination), repository.registry
    named = _docker_field(destination)
    try:
        found = keychain.find(repository)
    except InvalidConfigError as error:
        name, where = refs[error.config].name, f"{named}[{error.config}]"
        raise _invalid(name, where, f"{_DOCKER_CONFIG_KEY}: {error}") from error
    if found is None and (helper := keychain.missing_helper(repository)):
        names = ", ".join(repr(ref.name) for ref in refs)
        raise StepError(
            Reason.SECRET_INVALID,
            f"The Secrets of {named} ({names}) leave the credentials of {host} to the credential helper "
            f"{helper!r}, a program of the machine where they were made. Make one with user and password: kubectl "
            f"create secret docker-registry NAME --docker-server={host} --docker-username=… --docker-password=….",
        )
    return found


def _docker_refs(mounts: Mounts, destination: int | None) -> Sequence[NameRef]:
    output = mounts.inputs.spec.output
    return output.secret_refs if destination is None else output.destinations[destination].secret_refs


def _docker_field(destination: int | None) -> str:
    return "output.secretRefs" if destination is None else f"output.destinations[{destination}].secretRefs"


def git_credentials(mounts: Mounts) -> tuple[str, str] | BearerToken | None:
    """Return user and password, or the bearer token, of source.git.secretRef, or None when there is none.

    Raises:
        StepError: the Secret is missing or has no `password`, `token` or `bearerToken`.
    """
    git = mounts.inputs.spec.source.git
    if git is None or git.secret_ref is None:
        return None
    name, where = git.secret_ref.name, "source.git.secretRef"
    folder = mounts.at(paths.GIT)
    keys = _keys(mounts, folder, name, where)
    password = next((key for key in ("password", "token") if key in keys), None)
    if password is None and "bearerToken" in keys:
        return BearerToken(_line(folder, "bearerToken", name, where))
    if password is None:
        raise _invalid(name, where, f"it needs {_GIT_KEYS}, and has {_list(keys)}")
    user = _line(folder, "username", name, where) if "username" in keys else _TOKEN_USER
    return user, _line(folder, password, name, where)


def git_ssh(mounts: Mounts) -> SshCredentials:
    """Return key and known hosts of source.git.secretRef, for a repository at an ssh:// URL.

    Raises:
        StepError: the Secret is missing or lacks one of them.
    """
    git = mounts.inputs.spec.source.git
    assert git is not None
    assert git.secret_ref is not None, "the schema demands it of ssh:// URLs"
    name, where = git.secret_ref.name, "source.git.secretRef"
    keys = _keys(mounts, mounts.at(paths.GIT), name, where)
    key = next((key for key in (_SSH_KEY, "identity") if key in keys), None)
    if key is None:
        raise _invalid(name, where, f"it needs `{_SSH_KEY}` or `identity` for ssh, and has {_list(keys)}")
    if _KNOWN_HOSTS not in keys:
        host = urlsplit(git.url).hostname
        raise _invalid(
            name,
            where,
            f"it needs `{_KNOWN_HOSTS}`, which proves the identity of the server: add what `ssh-keyscan "
            f"{host}` prints, once compared with what the server's operators publish; it has {_list(keys)}",
        )
    return SshCredentials(
        key=_read(mounts, paths.GIT, key, name, where),
        known_hosts=_read(mounts, paths.GIT, _KNOWN_HOSTS, name, where),
    )


def http_headers(mounts: Mounts) -> dict[str, str]:
    """Return what logs in to the server of source.http.

    Raises:
        StepError: the Secret is missing or holds nothing that logs in.
    """
    http = mounts.inputs.spec.source.http
    if http is None or http.secret_ref is None:
        return {}
    name, where = http.secret_ref.name, "source.http.secretRef"
    folder = mounts.at(paths.HTTP)
    keys = _keys(mounts, folder, name, where)
    if {"username", "password"} <= keys:
        user, password = (_line(folder, key, name, where) for key in ("username", "password"))
        return {"Authorization": Credentials(user, password).basic()}
    token = next((key for key in ("token", "bearerToken") if key in keys), None)
    if token is None:
        raise _invalid(name, where, f"it needs {_HTTP_KEYS}, and has {_list(keys)}")
    return {"Authorization": f"Bearer {_line(folder, token, name, where)}"}


def build_secrets(mounts: Mounts) -> list[tuple[str, Path]]:
    """Return id and file of each of build.secrets.

    Raises:
        StepError: a Secret is missing or lacks its key.
    """
    found = []
    for secret in mounts.inputs.spec.build.secrets:
        folder, ref = f"{paths.SECRETS}/{secret.id}", secret.secret_key_ref
        where = f"build.secrets (id {secret.id})"
        _require(mounts, folder, ref.key, ref.name, where)
        found.append((secret.id, mounts.at(folder) / ref.key))
    return found


def ssh_key(mounts: Mounts) -> Path | None:
    """Return the file with the private key of build.ssh, or None when there is none.

    Raises:
        StepError: the Secret is missing or is no kubernetes.io/ssh-auth.
    """
    ssh = mounts.inputs.spec.build.ssh
    if ssh is None:
        return None
    _require(mounts, paths.SSH, _SSH_KEY, ssh.secret_ref.name, "build.ssh.secretRef")
    return mounts.at(paths.SSH) / _SSH_KEY


def signing_key(mounts: Mounts) -> "SigningKey | None":
    """Return the key of output.signing, or None when none signs.

    Raises:
        StepError: the Secret is missing, or holds no key that signs.
    """
    signing = mounts.inputs.spec.output.signing
    if signing is None or signing.secret_ref is None:
        return None
    # Not at the top: who does not sign does not wait for it.
    from multiarchbuild.oci.keys import InvalidKeyError, load  # noqa: PLC0415

    name, where = signing.secret_ref.name, "output.signing.secretRef"
    _require(mounts, paths.SIGNING, _COSIGN_KEY, name, where)
    folder = mounts.at(paths.SIGNING)
    password = folder / _COSIGN_PASSWORD
    try:
        return load((folder / _COSIGN_KEY).read_bytes(), password.read_bytes() if password.is_file() else b"")
    except InvalidKeyError as error:
        raise _invalid(name, where, str(error)) from error


def _line(folder: Path, key: str, name: str, where: str) -> str:
    """Return a value that is one line: a line break at its end comes from `--from-file`, one inside would end it."""
    text = _text(folder / key, name, where).rstrip("\r\n")
    if not text or any(character in text for character in "\r\n\0"):
        raise _invalid(name, where, f"`{key}` must be one line, and not empty")
    return text


def _read(mounts: Mounts, folder: str, key: str, name: str, where: str) -> str:
    _require(mounts, folder, key, name, where)
    return _text(mounts.at(folder) / key, name, where)


def _text(file: Path, name: str, where: str) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise _invalid(name, where, f"`{file.name}` is not text") from error


def _require(mounts: Mounts, folder: str, key: str, name: str, where: str) -> None:
    keys = _keys(mounts, mounts.at(folder), name, where)
    if key not in keys:
        raise _invalid(name, where, f"it needs the key `{key}` and has {_list(keys)}")


def _keys(mounts: Mounts, folder: Path, name: str, where: str) -> set[str]:
    # The kubelet keeps its own folders beside the keys; their names begin with two dots.
    keys = {path.name for path in folder.iterdir() if not path.name.startswith("..")} if folder.is_dir() else set()
    if not keys:
        raise StepError(
            Reason.SECRET_NOT_FOUND,
            f"{where} names the Secret {name!r}, which namespace {mounts.inputs.namespace!r} does not have or which "
            "lacks the key: create it, or correct the name.",
        )
    return keys


def _invalid(name: str, where: str, what: str) -> StepError:
    return StepError(Reason.SECRET_INVALID, f"The Secret {name!r} of {where} cannot be used: {what}.")


def _list(keys: set[str]) -> str:
    return ", ".join(f"`{key}`" for key in sorted(keys))
