"""Write the chart's README.md: its values with their defaults, from the comments in values.yaml."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent.parent / "charts" / "multiarchbuild"
_CHAPTER = "## "


@dataclass(frozen=True)
class Value:
    """One value of the chart."""

    path: str
    default: Any
    text: str
    """Its documentation; empty where there is none."""
    chapter: str


def values(text: str) -> Iterator[Value]:
    """Yield the values in the text of a values.yaml, in its order.

    What stands in comments directly above a key is its documentation. A mapping whose keys are documented is not a
    value itself: its keys are.
    """
    lines = text.splitlines()
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    yield from _mapping(root, yaml.safe_load(text), "", lines)


def _mapping(node: yaml.MappingNode, default: dict[str, Any], parent: str, lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{parent}.{key.value}" if parent else key.value
        own = default[key.value]
        if isinstance(value, yaml.MappingNode) and any(_comment(child.start_mark, lines) for child, _ in value.value):
            yield from _mapping(value, own, path, lines)
        else:
            yield Value(path, own, _comment(key.start_mark, lines), _chapter(key.start_mark.line, lines))


def _comment(mark: yaml.Mark, lines: list[str]) -> str:
    found: list[str] = []
    start = " " * mark.column + "# "
    for line in reversed(lines[: mark.line]):
        if not line.startswith(start):
            break
        found.insert(0, line[len(start) :])
    return " ".join(found)


def _chapter(number: int, lines: list[str]) -> str:
    return next((line.removeprefix(_CHAPTER) for line in reversed(lines[:number]) if line.startswith(_CHAPTER)), "")


def readme(chart: Mapping[str, Any], text: str, location: str = "") -> str:
    """Return the page for a chart (its Chart.yaml) with this values.yaml.

    `location` is what `helm install` is told: the folder in a clone unless it is released.
    """
    parts = [_HEAD.format(**chart, location=location or f"charts/{chart['name']}")]
    chapter = ""
    for value in values(text):
        if value.chapter != chapter:
            chapter = value.chapter
            parts.append(f"\n### {chapter}\n\n| value | default | meaning |\n|---|---|---|\n")
        parts.append(f"| `{value.path}` | {_default(value.default)} | {value.text.replace('|', chr(92) + '|')} |\n")
    return "".join(parts) + _TAIL


def _default(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("|", r"\|")


_HEAD = """<!-- Generated from values.yaml by `make generate`: edit the comments there. -->
# {name}

{description}. Version {version}, for Kubernetes {kubeVersion}.

```console
$ helm install {name} {location} --namespace multiarchbuild-system --create-namespace
$ kubectl get mab --all-namespaces
```

The operator's pods pass Pod Security `restricted`. Builders run in the namespaces of their builds, which have to allow
the seccomp profile `Unconfined` that rootless BuildKit needs.

* **Upgrade.** `helm upgrade` ([with these flags](https://github.com/multiarchbuild/multiarchbuild/blob/main/docs/versions.md#upgrade))
  brings the resource definition along. Builds go on meanwhile: nothing of them is in the
  operator's process. `helm rollback` is as safe: an older version ignores the fields that it does not
  know, and a build whose spec has a value that it does not know says `OperatorOutdated`, until it is changed or the
  operator upgraded. Where you apply the definition yourself, do it as Helm does, or Helm finds a conflict:
  `kubectl apply --server-side --field-manager=helm`. Where it has been applied otherwise, `--force-conflicts` of
  Helm 4 takes it over.
* **Uninstall.** `helm uninstall multiarchbuild --namespace multiarchbuild-system`. With `crds.keep`, the default, the
  resource definition and all MultiArchBuilds stay; delete them by
  `kubectl delete crd multiarchbuilds.multiarch.build`. Nothing else stays.
* **Some namespaces only.** With `namespaces: [a, b]` the operator gets rights on pods and ConfigMaps there, by
  RoleBindings, and on nothing else but reading nodes. Two releases must not serve the same namespace. The resource
  definition belongs to one release: the others set `crds.enabled: false`.
* **Test.** With `test.image` set at installation, `helm test NAME --logs` builds a tiny
  image for two platforms, pushes it there and says its digest. It builds in the namespace of the release; where
  that one enforces `restricted`, name another one in `test.namespace`.
* **Monitoring.** `metrics.serviceMonitor.enabled`, `metrics.rules.enabled` and `metrics.dashboard.enabled` create what
  the Prometheus operator and Grafana's sidecar look for. Without them: [alerts.yaml](alerts.yaml),
  [dashboard.json](dashboard.json).
* **QEMU.** `qemu.enabled` installs a DaemonSet that registers QEMU on the nodes, verifies it by running a foreign
  program in a container without privileges, and labels the node for as long as that works. Handlers that are there
  already are left alone. It is taken back when the release is uninstalled, or upgraded to `qemu.enabled: false`. Where
  something else than Helm applies the chart (Argo CD), or a rollback goes to a revision without it, first delete the
  DaemonSet: its pods need their rights to take the labels back. What a pod leaves that was killed goes with the next
  start of its node.

## Values
"""

_TAIL = """
`image.digest` pins the image; `values.schema.json` refuses what is misspelt.
"""


def page() -> str:
    """Return what README.md of the chart has to be."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    return readme(chart, (CHART / "values.yaml").read_text(encoding="utf-8"))


def main() -> int:
    """Write it."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (CHART / "README.md").write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{CHART / 'README.md'}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
