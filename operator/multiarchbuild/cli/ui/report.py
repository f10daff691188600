"""`kubectl mab report NAME -o report.html`: one run as one file, to attach to an issue or a CI run."""

from pathlib import Path
from typing import Final

from multiarchbuild.cli.errors import CliError, UsageError
from multiarchbuild.cli.kube import Cluster
from multiarchbuild.plan.children import Role

from . import pages
from .reading import Reader

_LINES: Final = 2000
"""Of each log, its last: a file that is attached somewhere is read by people."""


def write(cluster: Cluster, name: str, file: str, *, run: str, plain_http: bool) -> None:
    """Write the report of a run of a build, by default the last, to `file`.

    Raises:
        UsageError: the file cannot be written.
        CliError: there is no such build or run, or the API server does not answer.
    """
    reader = Reader(cluster, plain_http=plain_http)
    view = reader.run(cluster.namespace, name, run)
    build = view.build if view else reader.build(cluster.namespace, name)[1]
    logs = []
    for pod in view.pods if view else ():
        title = f"{', '.join(map(str, pod.platforms)) if pod.role is Role.BUILD else pod.role}, try {pod.attempt}"
        try:
            logs.append((title, reader.log(cluster.namespace, name, pod.name, "").lines[-_LINES:]))
        except CliError as error:
            logs.append((title, (str(error),)))
    found, said = None, ""
    try:
        found = reader.image(cluster.namespace, name) if build.ref else None
    except CliError as error:
        said = str(error)
    try:
        Path(file).write_text(pages.report(build, view, logs, found, said), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
