"""What runs inside the pods of a run: resolve, build, publish.

A step reads its mounts, does one thing, prints a log for people and leaves its result in the termination message.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from multiarchbuild.api.results import Source
from multiarchbuild.api.source import Paths
from multiarchbuild.api.token_services import TokenServices

from .mounts import Mounts
from .termination import conclude


def main(argv: Sequence[str], *, root: Path = Path("/")) -> int:
    """Run the step that `argv` names and return its exit code; `root` is where the mounts begin."""
    arguments = _parser().parse_args(argv)
    services = TokenServices.model_validate_json("".join(arguments.services) or "{}")
    mounts = Mounts(root, services=services)
    # Each step imports only what it needs: pods in a row are what a run waits for.
    match arguments.step:
        case "resolve":
            if arguments.base:
                from .base_images import moved  # noqa: PLC0415

                return conclude(mounts, lambda: moved(mounts, arguments.base))
            from .resolve import resolve  # noqa: PLC0415

            given = {"artifact": arguments.artifact, "paths": arguments.paths, "last": arguments.last}
            return conclude(mounts, lambda: resolve(mounts, **given))
        case "build":
            from .build import Request, build  # noqa: PLC0415
            from .deadline import deadline  # noqa: PLC0415

            request = Request(
                tuple(arguments.platform),
                arguments.cache_to,
                tuple(arguments.cache_from),
                arguments.small_ids,
                deadline(mounts, arguments.seconds, arguments.until),
                kept=bool(arguments.keep or arguments.cache_volume),
                on_volume=arguments.cache_volume,
            )
            if arguments.keep:
                from .build_work import building  # noqa: PLC0415
                from .kept import Keep, serve  # noqa: PLC0415

                return serve(mounts, building(mounts, request), Keep(arguments.keep, sweep=arguments.sweep))
            return conclude(mounts, lambda: build(mounts, request))
        case _:
            from .publish_work import publish_once, publishing  # noqa: PLC0415

            if not arguments.stay:
                return publish_once(mounts, lambda: arguments)
            from .kept import Keep, serve  # noqa: PLC0415

            return serve(mounts, publishing(mounts, arguments, _parser().parse_args), Keep(arguments.stay))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiarchbuild step", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    resolve = steps.add_parser("resolve", help="find the commit behind the ref")
    resolve.add_argument("--artifact", type=Source.model_validate_json, help="artifact of Flux, as JSON")
    resolve.add_argument("--paths", type=Paths.model_validate_json, help="files that count, as JSON")
    resolve.add_argument("--last", help="image that need not be built again, if nothing has changed since, as JSON")
    resolve.add_argument("--base", action="append", default=[], help="base image to ask for instead")
    build = steps.add_parser("build", help="build with the BuildKit beside this container, push by digest")
    build.add_argument("--platform", action="append", required=True, help="platform to build, such as linux/arm64")
    build.add_argument("--cache-to", help="reference that the cache is written to")
    build.add_argument("--cache-from", action="append", default=[], help="reference that the cache is read from")
    build.add_argument("--seconds", type=int, help="how long the pod may take (activeDeadlineSeconds)")
    build.add_argument("--until", type=datetime.fromisoformat, help="when the run ends, by the operator's clock")
    build.add_argument("--small-ids", action="store_true", help="the builder has no user and group ids above 65535")
    build.add_argument("--keep", type=int, default=0, help="seconds to wait for another build after this one")
    build.add_argument("--cache-volume", action="store_true", help="buildkitd has what earlier builds have left")
    build.add_argument("--sweep", action="store_true", help="have buildkitd's supervisor end what a build leaves")
    publish = steps.add_parser("publish", help="push the index over what was built, verify it, move the tags")
    publish.add_argument("--tag", action="append", default=[], help="tag that moves to the index")
    publish.add_argument("--stay", type=int, default=0, help="seconds to wait for another image after this one")
    publish.add_argument("--list", help="tag of the list of what the build has published, by which that expires")
    publish.add_argument("--cache", action="append", default=[], help="cache that the run has written")
    publish.add_argument("--cache-from", action="append", default=[], help="cache that the run has read")
    publish.add_argument("--keep", action="append", default=[], help="digest of an image that does not expire")
    for step in (resolve, build, publish):
        step.add_argument("--services", action="append", default=[], help="part of where tokens are sent, as JSON")
    return parser
