"""The Secrets of a run, as the kubelet has mounted them. A Secret that does not exist is an empty folder."""

from pathlib import Path

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.credentials import InvalidConfigError, Keychain

from .errors import StepError
from .mounts import Mounts

_DOCKER_CONFIG_KEY = ".dockerconfigjson"
_SSH_KEY = "ssh-privatekey"
_TOKEN_USER = "x-access-token"  # noqa: S105 - what git hosts take as the user beside a token


def registry_keychain(mounts: Mounts) -> Keychain:
    """Return the credentials in the Secrets of output.secretRefs.

    Raises:
        StepError: a Secret is missing or is no kubernetes.io/dockerconfigjson.
    """
    configs = []
    for index, ref in enumerate(mounts.inputs.spec.output.secret_refs):
        where = f"output.secretRefs[{index}]"
        text = _read(mounts, f"{paths.DOCKER}/{index}", _DOCKER_CONFIG_KEY, ref.name, where)
        try:
            Keychain.load([text])
        except InvalidConfigError as error:
            raise _invalid(ref.name, where, f"{_DOCKER_CONFIG_KEY}: {error}") from error
        configs.append(text)
    return Keychain.load(configs)


def git_credentials(mounts: Mounts) -> tuple[str, str] | None:
    """Return user and password of source.git.secretRef, or None when there is none.

    Raises:
        StepError: the Secret is missing or has no `password` or `token`.
    """
    git = mounts.inputs.spec.source.git
    if git is None or git.secret_ref is None:
        return None
    name, where = git.secret_ref.name, "source.git.secretRef"
    folder = mounts.at(paths.GIT)
    keys = _keys(mounts, folder, name, where)
    password = next((key for key in ("password", "token") if key in keys), None)
    if password is None:
        raise _invalid(name, where, f"it needs `username` and `password`, or `token`, and has {_list(keys)}")
    user = _text(folder / "username", name, where) if "username" in keys else _TOKEN_USER
    secret = _text(folder / password, name, where)
    # A line break at the end comes from `--from-file`; one inside would end the credential.
    user, secret = user.rstrip("\r\n"), secret.rstrip("\r\n")
    if not user or not secret or any(character in user + secret for character in "\r\n\0"):
        raise _invalid(name, where, f"`username` and `{password}` must be one line each, and not empty")
    return user, secret


def build_secrets(mounts: Mounts) -> list[tuple[str, Path]]:
    """Return id and file of each of build.secrets.

    Raises:
        StepError: a Secret is missing or lacks its key.
    """
    found = []
    for secret in mounts.inputs.spec.build.secrets:
        folder, ref = f"{paths.SECRETS}/{secret.id}", secret.secret_ref
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
