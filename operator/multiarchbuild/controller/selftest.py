"""`multiarchbuild selftest`: what `helm test` runs. Creates a MultiArchBuild, waits for its end, and deletes it."""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.aio.config import ConfigException

from multiarchbuild.api.stored import read_build

from .kube import BUILDS, AlreadyExists, Conflict, Kube, KubeError, NotFound, load_configuration

LOOK_SECONDS: Final = 1.0
"""Between two looks at the build."""


class SelfTestError(Exception):
    """The test has failed; the message says how."""


def main(argv: list[str]) -> int:
    """Return the exit code: 0 when the image was built."""
    parser = argparse.ArgumentParser(prog="multiarchbuild selftest", description=__doc__)
    parser.add_argument("build", type=Path, metavar="FILE", help="manifest of the MultiArchBuild, with its namespace")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    manifest = yaml.safe_load(arguments.build.read_text(encoding="utf-8"))
    try:
        asyncio.run(_test(manifest, arguments.timeout))
    except (SelfTestError, KubeError, ConfigException) as error:
        _say(f"FAILED: {error}")
        return 1
    return 0


async def _test(manifest: dict[str, Any], seconds: float) -> None:
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    async with Kube(await load_configuration()) as kube:
        build = await _create(kube, namespace, manifest, seconds)
        _say(f"created MultiArchBuild {namespace}/{name}")
        try:
            await _ready(kube, namespace, name, seconds)
        finally:
            await _delete(kube, namespace, name, build["metadata"]["uid"])


async def _create(kube: Kube, namespace: str, manifest: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Create the build, in the place of one that an earlier test left behind."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await kube.create(BUILDS, namespace, manifest)
        except AlreadyExists:
            if time.monotonic() > end:
                raise
            name = manifest["metadata"]["name"]
            await _delete(kube, namespace, name, (await kube.get(BUILDS, namespace, name))["metadata"]["uid"])
            await asyncio.sleep(LOOK_SECONDS)


async def _delete(kube: Kube, namespace: str, name: str, uid: str) -> None:
    try:
        await kube.delete(BUILDS, namespace, name, uid=uid)
    except (NotFound, Conflict):
        return


async def _ready(kube: Kube, namespace: str, name: str, seconds: float) -> None:
    """Say each new state of the build until it is ready. Raises `SelfTestError`."""
    end, said = time.monotonic() + seconds, ""
    while True:
        build = read_build(await kube.get(BUILDS, namespace, name)).build
        conditions = {entry.type: entry for entry in build.status.conditions}
        ready, stalled = conditions.get("Ready"), conditions.get("Stalled")
        state = f"{ready.reason}: {ready.message}" if ready else "the operator has not looked at it yet"
        if state != said:
            said = state
            _say(state)
        if ready and ready.status == "True" and build.status.image:
            _say(f"OK: {build.status.image.ref}")
            return
        if stalled and stalled.status == "True":
            tails = [entry.log_tail for entry in (build.status.run.platforms if build.status.run else ())]
            raise SelfTestError("\n".join([state, *filter(None, tails)]))
        if time.monotonic() > end:
            raise SelfTestError(f"not ready after {seconds:.0f} s: {state}")
        await asyncio.sleep(LOOK_SECONDS)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
