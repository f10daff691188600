"""The run: contestants take turns within each round, so that what slows the machine down slows all of them."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from hack.image import build_image
from hack.install import NAMESPACE, RELEASE, install
from hack.target import Target
from multiarchbuild.plan.policy import BUILDKIT_IMAGE
from tests.cluster import build
from tests.cluster.layout import cache_directory

from .buildx import Buildx
from .contestant import BenchmarkError, Contestant
from .raw import RawPods
from .report import Comparison, Goal, Sample
from .through_operator import Kept, Operator
from .workload import TAG, Case

COMPARISONS = (
    Comparison(Operator.name, RawPods.name),
    Comparison(Operator.name, Buildx.name),
    Comparison(Kept.name, Buildx.name),
)
CONTESTANTS = (RawPods.name, Operator.name, Kept.name, Buildx.name)
GOALS = (
    Goal("one file changed, kept", Case.CHANGED, COMPARISONS[2], 1.2),
    Goal("nothing changed, kept", Case.REBUILD, COMPARISONS[2], 2.0),
    Goal("nothing changed, nothing kept", Case.REBUILD, COMPARISONS[0], 1.0),
    Goal("cold", Case.COLD, COMPARISONS[0], 1.0),
    Goal("cold", Case.COLD, COMPARISONS[1], 0.4),
)

_NAMESPACE = "mab-benchmark"
_BUILDX_NAMESPACE = "mab-benchmark-buildx"


def measure(target: Target, rounds: int, names: Sequence[str]) -> list[Sample]:
    """Return the samples of `rounds` rounds of the contestants `names`; the cluster is left as it was found.

    Raises:
        BenchmarkError: A build failed, or contestants did not build the same images.
        CommandError: A program failed.
        BuildError: The program of `docker buildx` can't be built.
    """
    with ExitStack() as stack:
        stack.enter_context(namespaces(target, _NAMESPACE, _BUILDX_NAMESPACE))
        contestants: list[Contestant] = []
        images = [BUILDKIT_IMAGE]
        if RawPods.name in names:
            contestants.append(RawPods(target, _NAMESPACE))
        own = [each(target, _NAMESPACE) for each in (Operator, Kept) if each.name in names]
        if own:
            image = build_image(target)
            stack.enter_context(installed(target, image))
            images.append(image)
            contestants += own
        if Buildx.name in names:
            program = build.ensure_programs(cache_directory(os.environ), {"buildx"})["buildx"]
            buildx = Buildx(target, program, _BUILDX_NAMESPACE)
            stack.callback(buildx.close)
            contestants.append(buildx)
        for contestant in contestants:
            stack.callback(contestant.reset)
        _pull(target, images)
        return [sample for number in range(rounds) for sample in _round(target, number, contestants)]


def _round(target: Target, number: int, contestants: Sequence[Contestant]) -> Iterator[Sample]:
    """Yield the samples of one round; each begins with another contestant."""
    shift = number % len(contestants)
    order = [*contestants[shift:], *contestants[:shift]]
    for case in Case:
        built = dict[str, dict[str, str]]()
        for contestant in order:
            # A repository of its own for each round: no layer and no cache of an earlier one is found there.
            slug = contestant.name.replace(" ", "-")
            image = f"{target.facts.registry}/benchmark/{os.getpid()}-{number}-{slug}"
            load = os.getloadavg()[0]
            timing = contestant.build(case, image)
            _say(f"round {number + 1}, {case}: {contestant.name} took {timing.seconds:.2f} s (load before {load:.1f})")
            built[contestant.name] = _images(target, image)
            yield Sample(number, case, contestant.name, timing.seconds, timing.phases, load)
        if len({json.dumps(images) for images in built.values()}) > 1:
            raise BenchmarkError(f"the contestants built different images, which is no comparison: {built}")
    for contestant in order:
        contestant.reset()


def _images(target: Target, image: str) -> dict[str, str]:
    """Return the digest of each platform's image in the index."""
    index: dict[str, Any] = json.loads(target.crane("manifest", f"{image}:{TAG}"))
    return {
        f"{entry['platform']['os']}/{entry['platform']['architecture']}": entry["digest"]
        for entry in index["manifests"]
        if entry["platform"]["os"] != "unknown"
    }


@contextmanager
def namespaces(target: Target, *names: str) -> Iterator[None]:
    """Make new namespaces, and delete them with all that is in them."""
    delete = ("delete", "namespace", *names, "--ignore-not-found", "--timeout=180s")
    target.kubectl(*delete)  # of a run that was killed
    items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    try:
        target.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        yield
    finally:
        target.kubectl(*delete)


@contextmanager
def installed(target: Target, image: str) -> Iterator[None]:
    """Install the operator; uninstall it again unless it was there before."""
    releases = target.run("helm", "list", "--namespace", NAMESPACE, "--short").split()
    try:
        install(target, image)
        yield
    finally:
        if RELEASE not in releases:
            target.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")


def _pull(target: Target, images: Sequence[str]) -> None:
    """Pull `images` to each node: a builder that is new to a node is not what is measured."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pull-{node}", "namespace": _NAMESPACE},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [
                    {"name": f"image-{number}", "image": image, "command": ["true"]}
                    for number, image in enumerate(images)
                ],
            },
        }
        for node in target.nodes
    ]
    names = [f"pod/pull-{node}" for node in target.nodes]
    target.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    target.kubectl("wait", *names, "--namespace", _NAMESPACE, succeeded, "--timeout=300s")
    target.kubectl("delete", *names, "--namespace", _NAMESPACE)


def _say(line: str) -> None:
    sys.stderr.write(f"==> {line}\n")
    sys.stderr.flush()
