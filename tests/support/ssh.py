"""A git server over ssh in the cluster: OpenSSH's, on Debian."""

import json
from dataclasses import dataclass
from typing import Any

from hack.target import Target

from .git import GitServer, Repository

NAMESPACE = "mab-test-ssh"
_IMAGE = "debian:trixie-slim"
_START = """
set -e
apt-get update -q
apt-get install -qy --no-install-recommends git openssh-server
mkdir -p -m 0755 /run/sshd && mkdir -p -m 0700 /root/.ssh /srv/git
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/deploy
cp /root/.ssh/deploy.pub /root/.ssh/authorized_keys
exec /usr/sbin/sshd -D -e -o PasswordAuthentication=no
"""


@dataclass(frozen=True)
class SshServer(GitServer):
    """The pod that serves."""

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program in the pod and return what it printed."""
        return self.target.kubectl("exec", "-i", "-n", NAMESPACE, "ssh", "--", *argv, stdin=stdin)

    def url(self, repository: Repository) -> str:
        """Return the URL of a repository."""
        return f"ssh://root@ssh.{NAMESPACE}.svc/srv/git/{repository.name}"

    def secret(self) -> dict[str, str]:
        """Return the content of a Secret of type kubernetes.io/ssh-auth that may read everything here."""
        host_key = self.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()
        return {
            "ssh-privatekey": self.run("cat", "/root/.ssh/deploy"),
            "known_hosts": f"ssh.{NAMESPACE}.svc {host_key[0]} {host_key[1]}\n",
        }


def start(target: Target) -> SshServer:
    """Start the server, or find it running."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    target.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    target.kubectl("wait", "serviceaccount/default", "-n", NAMESPACE, "--for=create", "--timeout=300s")
    manifest = {"apiVersion": "v1", "kind": "List", "items": _manifests()}
    target.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(manifest))
    target.kubectl("wait", "pod/ssh", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=590s")  # it installs sshd
    return SshServer(target)


def _manifests() -> list[dict[str, Any]]:
    meta = {"name": "ssh", "namespace": NAMESPACE, "labels": {"app": "ssh"}}
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "containers": [
            {
                "name": "ssh",
                "image": _IMAGE,
                "command": ["sh", "-c", _START],
                "readinessProbe": {"tcpSocket": {"port": 22}, "periodSeconds": 1},
            }
        ],
    }
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": "ssh"}, "ports": [{"port": 22}]},
        },
    ]
