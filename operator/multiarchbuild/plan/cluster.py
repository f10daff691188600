"""All builds of the cluster, as far as a decision about one of them has to know the others."""

from collections.abc import Iterable

from .build_summary import BuildSummary
from .policy import Concurrency
from .turns import Turns


class ClusterView:
    """Kept as builds change, so that no decision has to walk through all of them."""

    def __init__(self, limits: Concurrency | None = None, builds: Iterable[BuildSummary] = ()) -> None:
        """Begin with `builds`; `limits` is how many runs may go on at the same time."""
        self.turns = Turns(limits or Concurrency())
        """Whose turn it is."""
        self._by_repository: dict[str, dict[str, BuildSummary]] = {}
        self.builds: dict[str, BuildSummary] = {}
        """All that are known, by uid."""
        self._polling: set[str] = set()
        self._by_name: dict[tuple[str, str], BuildSummary] = {}
        self._by_parent: dict[tuple[str, str], dict[str, None]] = {}
        for build in builds:
            self.store(build)

    def store(self, build: BuildSummary) -> None:
        """Take in a build as it is now."""
        before = self.builds.get(build.uid)
        if before is not None and before.repositories != build.repositories:
            self._withdraw(before)
        if before is not None and before.parents != build.parents:
            self._disown(before)
        self.builds[build.uid] = build
        self._by_name[build.namespace, build.name] = build
        for parent in build.parents:
            self._by_parent.setdefault((build.namespace, parent), {})[build.name] = None
        for repository in build.repositories:
            self._by_repository.setdefault(repository, {})[build.uid] = build
        self.turns.store(build)
        if build.polling:
            self._polling.add(build.uid)
        else:
            self._polling.discard(build.uid)

    def remove(self, uid: str) -> None:
        """Forget a build; one that is not known is no error."""
        before = self.builds.pop(uid, None)
        if before is not None:
            self._withdraw(before)
            self._disown(before)
            if self._by_name.get((before.namespace, before.name)) == before:
                del self._by_name[before.namespace, before.name]
            self.turns.remove(uid)
            self._polling.discard(uid)

    def pushing_to(self, repository: str) -> Iterable[BuildSummary]:
        """Return the builds that move tags in this repository: that of their image, or one of their destinations."""
        return self._by_repository.get(repository, {}).values()

    def named(self, namespace: str, name: str) -> BuildSummary | None:
        """Return the build of this name."""
        return self._by_name.get((namespace, name))

    def built_from(self, namespace: str, name: str) -> tuple[str, ...]:
        """Return the names of the builds whose images are built from that of this one, be there one or not."""
        return tuple(self._by_parent.get((namespace, name), ()))

    @property
    def polling(self) -> int:
        """How many looks at sources go on."""
        return len(self._polling)

    def polling_beside(self, uid: str) -> int:
        """Return how many looks at sources go on, without that of this build."""
        return len(self._polling) - (uid in self._polling)

    def _disown(self, build: BuildSummary) -> None:
        for parent in build.parents:
            children = self._by_parent[build.namespace, parent]
            del children[build.name]
            if not children:
                del self._by_parent[build.namespace, parent]

    def _withdraw(self, build: BuildSummary) -> None:
        for repository in build.repositories:
            pushing = self._by_repository[repository]
            del pushing[build.uid]
            if not pushing:
                del self._by_repository[repository]
