"""The operator's image as it is installed."""

from hack.install import NAMESPACE, RELEASE
from hack.target import Target

UNCOMPILED = """
import os, sys
import multiarchbuild.controller.main
from multiarchbuild.steps import kept, publish, resolve
print([name for name, module in sorted(sys.modules.items())
       if (cached := getattr(module, "__cached__", None)) and not os.path.exists(cached)])
"""


def test_no_pod_compiles_what_it_imports(target: Target) -> None:
    """Root filesystems are read-only: what is not compiled in the image is compiled at each start of each step."""
    python = ("python", "-c", UNCOMPILED)
    found = target.kubectl("exec", "-n", NAMESPACE, f"deployment/{RELEASE}", "--", *python)
    assert found.strip() == "[]"


COMPILE = """
import subprocess
from multiarchbuild.profile import apparmor
parser = ("apparmor_parser", "--skip-kernel-load", "--skip-cache", "--features-file=/etc/apparmor.d/abi/4.0")
subprocess.run(parser, input=apparmor.text().encode(), check=True)
"""


def test_the_app_armor_profile_compiles_with_the_parser_beside_it(target: Target) -> None:
    python = ("python", "-c", COMPILE)
    target.kubectl("exec", "-n", NAMESPACE, f"deployment/{RELEASE}", "--", *python)
