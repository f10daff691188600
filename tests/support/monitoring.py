"""The definitions of ServiceMonitor and PrometheusRule, as the Prometheus operator's Go module has them."""

import json
import os
import subprocess
from pathlib import Path

from tests.cluster.build import gotoolchain
from tests.cluster.layout import cache_directory

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
KINDS = ("prometheusrules", "servicemonitors")


def definitions() -> list[Path]:
    """Return the files with the two definitions. Go verifies the module against its checksum database."""
    go = gotoolchain.find(cache_directory(os.environ), (1, 24, 0))
    assert go is not None, "`make cluster` provides Go"
    done = subprocess.run(
        [go.command, "mod", "download", "-json", MODULE],
        cwd="/",
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(json.loads(done.stdout)["Dir"], "example", "prometheus-operator-crd")
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]
