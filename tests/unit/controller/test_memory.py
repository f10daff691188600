"""What the C library does with memory that is free again, in a process of its own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from multiarchbuild.controller.memory import give_back_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "given-back":
    give_back_large_blocks()
before, large, small = resident(), [], []
for number in range(400):
    large.append(b"x" * 100_000)
    small.append(b"y" * (2_000 + number))
del large
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
@pytest.mark.parametrize(("given_back", "least", "most"), [("given-back", -1, 8), ("kept", 20, 60)])
def test_large_blocks_go_back_between_small_ones_that_stay(given_back: str, least: int, most: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, given_back], capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most
