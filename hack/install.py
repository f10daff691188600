"""Install the operator in a cluster by its Helm chart."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from .image import build_image
from .target import Target, finish

CHART = Path(__file__).parent.parent / "charts" / "multiarchbuild"
NAMESPACE = "multiarchbuild-system"
RELEASE = "multiarchbuild"


def install(target: Target, image: str, policy: dict[str, Any] | None = None, **values: Any) -> None:
    """Install or upgrade the operator to `image`, with `policy` besides what this cluster's registries need.

    `values` are further ones of the chart.

    Returns once the operator is ready.

    Raises:
        CommandError: Helm failed.
    """
    repository, tag = target.pulled(image).rsplit(":", 1)
    secure = target.facts.secure_registry
    ca_bundle = {"caBundle": Path(secure.ca).read_text(encoding="utf-8")} if secure else {}
    values = {
        **values,
        "image": {"repository": repository, "tag": tag},
        "policy": {"registries": target.registries, **ca_bundle, **(policy or {})},
    }
    started = time.monotonic()
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    target.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    target.run(
        *("helm", "upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE),
        # --take-ownership: an operator without this chart may have left its Lease or its resource definition.
        *("--values", "-", "--wait", "--timeout", "5m", "--take-ownership"),
        stdin=json.dumps(values),
    )
    print(f"    operator {image} is ready in namespace {NAMESPACE} ({time.monotonic() - started:.0f} s)", flush=True)


def main() -> int:
    """Build and install the operator in the cluster that the environment names."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    return finish(lambda target: install(target, build_image(target)), bring_registry=True)


if __name__ == "__main__":
    raise SystemExit(main())
