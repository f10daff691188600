"""References of the registry cache: one for each scope and builder, written by that builder only.

They are derived from the namespace and name of the build, so that nobody can point an export at another's cache.
"""

import re

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import CacheMode

from .actions import CacheRefs
from .identity import builder_slug, digest, is_commit
from .patterns import MAX_REPOSITORY, substitute

MAIN = "main"
"""Scope that every other scope falls back to."""
_OWNER = 20
"""Hexadecimal digits, 80 bits: nobody finds a name for a build that hashes to another's refs."""
_HASHED = re.compile(r".*-[0-9a-f]{6}")


def cache_refs(build: MultiArchBuild, platforms: tuple[Platform, ...], template: str | None = None) -> CacheRefs:
    """Return where the builder of `platforms` exports its cache to and imports from, the nearest first.

    `template` is the policy's, for builds that name no repository.
    """
    spec = build.spec
    if spec.cache.mode is CacheMode.DISABLED:
        return CacheRefs(export_to=None, import_from=())
    repository = spec.cache.repository or _from(template, build) or spec.output.image
    own = own_hash(build.metadata.namespace, build.metadata.name)
    scope = _scope(spec.source.git.ref if spec.source.git else MAIN)

    def ref(scope: str, builder: str) -> str:
        return f"{repository}:cache-{own}-{scope}-{builder}"

    slug = builder_slug(platforms)
    # A cross builder can use what single-platform builders left for the stages that run on its own architecture.
    siblings = [ref(MAIN, platform.slug) for platform in platforms] if len(platforms) > 1 else []
    imports = dict.fromkeys([ref(scope, slug), ref(MAIN, slug), *siblings] if spec.cache.import_ else [])
    return CacheRefs(export_to=ref(scope, slug), import_from=tuple(imports))


def own_hash(*parts: str) -> str:
    """Return what tags of one build have in common after `cache-`, and no others have: of what tells it apart."""
    return digest(*parts)[:_OWNER]


def _from(template: str | None, build: MultiArchBuild) -> str:
    """Return the repository that `template` means for `build`, or nothing when there is none."""
    if template is None:
        return ""
    namespace, name = build.metadata.namespace, build.metadata.name
    room = MAX_REPOSITORY - len(substitute(template, {"namespace": namespace, "name": ""}))
    if len(name) > room:
        # Cut, with a hash of what was cut, where a repository has no room for a name of 253 characters.
        name = f"{name[: max(room - 11, 0)].rstrip('-.')}-{digest(name)[:10]}".lstrip("-")
    return substitute(template, {"namespace": namespace, "name": name})


def _scope(ref: str) -> str:
    name = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    if name in {"HEAD", "main", "master"} or is_commit(name):
        return MAIN
    slug = re.sub(r"[^a-z0-9_.-]", "-", name.lower())[:40]
    # Two branches must not share a scope because their names differ only in what a tag can't hold.
    return slug if slug == name and not _HASHED.fullmatch(name) else f"{slug}-{digest(name)[:6]}"
