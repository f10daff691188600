"""Which certificate authorities the programs of a step trust: the system's, and those of the operator's policy."""

import ssl
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from multiarchbuild.api import mounts as paths

from .mounts import Mounts


@cache
def ca_file(mounts: Mounts) -> str | None:
    """Return the path of a PEM file with all of them, or None when the policy adds none."""
    own = mounts.at(paths.INPUTS) / paths.CA_FILE
    if not own.is_file():
        return None
    system = ssl.get_default_verify_paths().cafile
    together = mounts.work / "ca.crt"
    parts = [Path(system).read_bytes()] if system else []
    # Several threads ask at once: none may read a file that another is writing.
    with NamedTemporaryFile(dir=mounts.work, delete=False) as written:
        written.write(b"\n".join([*parts, own.read_bytes()]))
    Path(written.name).replace(together)
    return str(together)
