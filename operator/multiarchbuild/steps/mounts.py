"""The files that a step was given, below a root that tests can move, and where it sends its tokens."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.token_services import TokenServices

TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True)
class Mounts:
    """Where everything is; `root` is `/` in a pod."""

    root: Path = Path("/")
    handed: Path | None = None
    """Where the inputs of the run are that a kept builder was handed; by default they are in its ConfigMap."""
    services: TokenServices = field(default_factory=TokenServices)
    """Where tokens are sent. It is no part of the inputs, which somebody else may have written."""

    def at(self, path: str) -> Path:
        """Return where the absolute path `path` of `api.mounts` is."""
        return self.root / path.lstrip("/")

    @cached_property
    def inputs(self) -> Inputs:
        """What all steps of the run have in common."""
        return Inputs.model_validate_json((self.inputs_folder / paths.INPUTS_FILE).read_bytes())

    @property
    def inputs_folder(self) -> Path:
        """Folder with INPUTS_FILE and the inline files."""
        return self.handed or self.at(paths.INPUTS)

    @property
    def work(self) -> Path:
        """Folder that the step may write to."""
        return self.at(paths.WORK)

    @property
    def socket(self) -> Path:
        """Socket of buildkitd."""
        return self.at(paths.BUILDKIT_ADDRESS.removeprefix("unix://"))

    @property
    def termination_log(self) -> Path:
        """File that the kubelet takes the termination message from."""
        return self.at(TERMINATION_LOG)
