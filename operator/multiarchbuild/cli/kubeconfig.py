"""Which cluster, user and namespace are meant, by the files and options of kubectl."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from .errors import UsageError

IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Who the API server is to take a request for (https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/)."""

    user: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def headers(self) -> Iterator[tuple[str, str]]:
        """Yield the headers of each request."""
        if self.user:
            yield "Impersonate-User", self.user
        if self.uid:
            yield "Impersonate-Uid", self.uid
        yield from (("Impersonate-Group", group) for group in self.groups)
        for key, values in self.extra.items():
            yield from ((f"Impersonate-Extra-{key}", value) for value in values)


@dataclass(frozen=True, slots=True)
class Access:
    """What the options say."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    impersonated: Impersonation = Impersonation()
    request_timeout: float = 0.0
    """Seconds for one request; 0 leaves it to the client."""

    @property
    def location(self) -> str:
        """Paths of kubeconfigs, as in KUBECONFIG."""
        return self.kubeconfig or os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube" / "config")

    @property
    def exists(self) -> bool:
        """Whether there is a kubeconfig."""
        return any(Path(path).expanduser().is_file() for path in self.location.split(os.pathsep) if path)

    @property
    def in_cluster(self) -> bool:
        """Whether this is a pod without a kubeconfig, where kubectl takes the ServiceAccount."""
        return not self.kubeconfig and not self.exists and IN_CLUSTER_NAMESPACE.exists()

    def read(self) -> "Kubeconfig":
        """Return the kubeconfig, merged from all files: the first that names something counts, as with kubectl.

        Raises:
            UsageError: there is no kubeconfig, or it is malformed.
        """
        if not self.exists:
            raise UsageError(f"no cluster to work with: {self.location} does not exist; name one with --kubeconfig")
        found = Kubeconfig(self.location)
        for path in filter(None, self.location.split(os.pathsep)):
            file = Path(path).expanduser()
            if not file.is_file():
                continue
            try:
                document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
                found.current = found.current or str(document.get("current-context") or "")
                for entry in document.get("contexts") or ():
                    found.contexts.setdefault(str(entry["name"]), dict(entry["context"]))
                for entry in document.get("users") or ():
                    found.users.setdefault(str(entry["name"]), dict(entry.get("user") or {}))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
                raise UsageError(f"{path} is not a kubeconfig: {error}") from error
        return found


@dataclass(slots=True)
class Kubeconfig:
    """What the files say."""

    location: str
    contexts: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)
    current: str = ""

    def named(self, context: str) -> str:
        """Return `context`, or the current one where it is empty.

        Raises:
            UsageError: there is no such context.
        """
        name = context or self.current
        if name not in self.contexts:
            what = f"no context {name!r}" if name else "no current context"
            raise UsageError(
                f"{self.location} has {what}: name one with --context; contexts: {', '.join(self.contexts) or 'none'}"
            )
        return name

    def user(self, context: str) -> Entry:
        """Return the user of a context, empty where it names none."""
        return self.users.get(str(self.contexts[context].get("user") or ""), {})

    def impersonated(self, context: str) -> Impersonation:
        """Return who the user of a context impersonates."""
        user = self.user(context)
        extra = {str(key): tuple(map(str, values)) for key, values in (user.get("as-user-extra") or {}).items()}
        groups = tuple(map(str, user.get("as-groups") or ()))
        return Impersonation(str(user.get("as") or ""), str(user.get("as-uid") or ""), groups, extra)
