"""A RUN that lasts as long as a test wants: no test has to be faster than a `sleep`."""

from dataclasses import dataclass

from .git import NAMESPACE, GitServer


@dataclass(frozen=True)
class Gate:
    """Keeps a RUN waiting until it is opened, by a file on the git server that is not there before."""

    server: GitServer
    name: str
    """Of its folder on the server."""

    def wait(self, leaf: str = "open") -> str:
        """Return the shell command that ends when `leaf` is opened; $(uname -m) in it tells platforms apart."""
        # The address of the Service: a RUN in the image of busybox may have no names.
        address = ("get", "service", "git", "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")
        url = f"http://{self.server.target.kubectl(*address)}/files/{self.name}/{leaf}"
        return f'until wget -q -O /dev/null "{url}"; do sleep 0.2; done'

    def open(self, leaf: str = "open") -> None:
        """Let pass who waits for `leaf`, now and from now on."""
        self.server.file(f"{self.name}/{leaf}", b"open")
