"""`docker buildx` with its kubernetes driver: one Deployment per platform, which stays between builds."""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from hack.target import Target
from multiarchbuild.plan.policy import BUILDKIT_IMAGE
from multiarchbuild.steps.dates import EARLIEST

from .contestant import BenchmarkError, Timing, phases
from .workload import PLATFORMS, TAG, Case, arch, files

_BUILDER = "bench"
_BOOTING = re.compile(r"#(\d+) \[.*\] booting buildkit")
_DONE = re.compile(r"#(\d+) DONE")


class Buildx:
    """The program, with a configuration of its own in a folder that `close` removes."""

    name = "docker buildx"

    def __init__(self, target: Target, program: Path, namespace: str) -> None:
        self._target = target
        self._program = str(program)
        self._namespace = namespace
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-buildx-")
        self._home = Path(self._folder.name)
        (self._home / "buildkitd.toml").write_text(target.facts.buildkitd_toml, encoding="utf-8")

    def build(self, case: Case, image: str) -> Timing:
        """Create the builder where there is none, and build."""
        context = self._context(case)
        start = time.time()
        if case is Case.COLD:
            for platform in PLATFORMS:
                self._create_node(platform)
        booted = self._build(context, image)
        end = time.time()
        return phases(
            start, {"builders started": booted, "built and pushed": end} if booted else {"built and pushed": end}
        )

    def reset(self) -> None:
        """Remove the builder and its Deployments, and wait until their pods are gone."""
        if (self._home / "instances" / _BUILDER).exists():
            self._buildx("rm", _BUILDER)
        self._target.kubectl("delete", "deployments,configmaps,pods", "--all", "--namespace", self._namespace)

    def close(self) -> None:
        """Remove the configuration."""
        self._folder.cleanup()

    def _context(self, case: Case) -> Path:
        folder = self._home / case
        folder.mkdir(exist_ok=True)
        for path, content in files(case).items():
            (folder / path).write_text(content, encoding="utf-8")
            (folder / path).chmod(0o644)
        return folder

    def _create_node(self, platform: str) -> None:
        options = [
            f"namespace={self._namespace}",
            f"image={BUILDKIT_IMAGE}",
            "rootless=true",
            f"nodeselector=kubernetes.io/arch={arch(platform)}",
        ]
        append = ["--append"] if platform != PLATFORMS[0] else []
        self._buildx(
            *("create", "--name", _BUILDER, "--driver", "kubernetes", *append, "--node", arch(platform)),
            *("--platform", platform, "--buildkitd-config", str(self._home / "buildkitd.toml")),
            *(f"--driver-opt={option}" for option in options),
        )

    def _build(self, context: Path, image: str) -> float | None:
        """Build; return the Unix time at which the last builder was up, None where none had to start."""
        command = [
            *(self._program, "build", "--builder", _BUILDER, "--progress=plain", "--provenance=mode=min"),
            *("--platform", ",".join(PLATFORMS), f"--build-arg=SOURCE_DATE_EPOCH={EARLIEST}", str(context)),
            f"--output=type=image,name={image}:{TAG},push=true,oci-mediatypes=true,rewrite-timestamp=true",
        ]
        log, booting, booted = list[str](), set[str](), None
        with subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                log.append(line)
                if started := _BOOTING.match(line):
                    booting.add(started[1])
                elif (done := _DONE.match(line)) and done[1] in booting:
                    booted = time.time()
        if process.returncode:
            raise BenchmarkError(f"docker buildx could not build {image}:\n{''.join(log[-30:])}")
        return booted

    def _buildx(self, *args: str) -> None:
        done = subprocess.run(
            [self._program, *args], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchmarkError(f"docker buildx {args[0]} failed: {done.stderr.strip()}")

    @property
    def _environment(self) -> dict[str, str]:
        own = {"BUILDX_CONFIG": str(self._home), "DOCKER_CONFIG": str(self._home / "docker")}
        return {**os.environ, **self._target.environment, **own}
