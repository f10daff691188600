"""How git speaks ssh: one key, and only with hosts that are known."""

import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CONNECT_SECONDS = 10
_SILENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class SshCredentials:
    """What the Secret of a repository holds."""

    key: str = field(repr=False)
    """Private key, without a passphrase."""
    known_hosts: str
    """Host keys, as in ~/.ssh/known_hosts."""


class UnusableKeyError(ValueError):
    """A text is no private key, or one with a passphrase; the message never quotes it."""


def command(credentials: SshCredentials, folder: Path) -> str:
    """Write the files that ssh needs into `folder`, which is new, and return the value of GIT_SSH_COMMAND.

    Raises:
        UnusableKeyError: the key cannot be used.
    """
    folder.mkdir(mode=0o700)
    key, known_hosts = folder / "key", folder / "known_hosts"
    # Mounted Secrets may be read by all, which ssh refuses; and a key that lost its last line break is none.
    key.touch(mode=0o600)
    key.write_text(_lines(credentials.key))
    known_hosts.write_text(_lines(credentials.known_hosts))
    _check(key)
    options = {
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "BatchMode": "yes",
        "PreferredAuthentications": "publickey",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": str(_SILENCE_SECONDS // 3),
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    # Nothing that the machine says about ssh has a say: its configuration could name other keys and hosts.
    return shlex.join(["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())])


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip("\n") + "\n"


def _check(key: Path) -> None:
    done = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(key)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        if "passphrase" in done.stderr:
            raise UnusableKeyError("the key has a passphrase: use a key without one")
        raise UnusableKeyError("it is not a private key as ssh-keygen writes them")
