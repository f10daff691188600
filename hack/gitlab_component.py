"""Writes templates/mab-build.yml, the GitLab component, from the inputs of the GitHub Action and the script of both.

GitLab looks for components in `templates/` of a repository, and runs nothing else of it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "integrations" / "github" / "action.yml"
SCRIPT = ROOT / "integrations" / "build.sh"
COMPONENT = ROOT / "templates" / "mab-build.yml"
_FROM_VARIABLES = {"kubeconfig"}
"""What no input may hold, as it would be shown: set MAB_KUBECONFIG as a masked variable of type variable."""

_HEAD = """\
# Written by `make generate` from integrations/: do not edit.
spec:
  inputs:
    stage:
      description: Stage of the job.
      default: build
    job:
      description: Name of the job.
      default: mab-build
    job-image:
      description: Image of the job, with python3 and sh.
      default: python:3.13-slim
"""


def component() -> str:
    """Return the text of the component."""
    action: dict[str, Any] = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    lines = [_HEAD.rstrip("\n")]
    variables = ["    MAB_DOTENV: mab.env"]
    for name, given in action["inputs"].items():
        if name in _FROM_VARIABLES:
            continue
        described = [f"      description: {given['description']}", f'      default: "{given["default"]}"']
        lines += [f"    {name}:", *described]
        variables.append(f'    MAB_{name.upper().replace("-", "_")}: "$[[ inputs.{name} ]]"')
    lines += ["---", '"$[[ inputs.job ]]":', "  stage: $[[ inputs.stage ]]", "  image: $[[ inputs.job-image ]]"]
    lines += ["  variables:", *variables, "  script:", "    - |"]
    lines += [f"      {line}".rstrip() for line in SCRIPT.read_text(encoding="utf-8").splitlines()]
    lines += ["  artifacts:", "    reports:", "      dotenv: mab.env"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write it."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    COMPONENT.parent.mkdir(exist_ok=True)
    COMPONENT.write_text(component(), encoding="utf-8")
    sys.stdout.write(f"{COMPONENT}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
