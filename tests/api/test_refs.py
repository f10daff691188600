"""`source.git.ref` takes the names that git takes, and no others."""

import subprocess

import pytest

from tests.api.conftest import Kubectl
from tests.api.objects import base, changed
from tests.cluster.build import packages

PATH = ".source.git.ref"
NAMES = (
    *("main", "v1.2.0", "feature/login", "refs/heads/main", "refs/pull/7/head", "HEAD", "1" * 40),
    *(
        "fix/#12",
        "a,b",
        "a=b",
        "100%",
        "a%20b",
        "a+b",
        "+a",
        "a@b",
        "@a",
        "a{b}",
        "{x}",
        "(a)",
        "a!b",
        "a;b",
        "a&b",
        "$x",
    ),
    *("a'b", 'a"b', "a|b", "a<b>", "größe", "\N{PILE OF POO}", "a-", "a.b", "a.locks", "a.lock.b", "_", "~", "a~1"),
    *("a^", "a:b", "a?", "a*", "a[b", "a]b", "a\\b", "a b", "a\tb", "a\x7fb", "a\nb", "a..b", "a@{b", "@/a", "a/@"),
    *("a//b", "/a", "a/", "a.", "a/.b", ".a", "a./b", "a.lock", "a.lock/b", "-a", "--upload-pack=x", "a/-b", "."),
)


def git_takes(name: str) -> bool:
    """Return whether git lets somebody make a branch of this name; HEAD is no branch but a name all the same."""
    command = ["git", "check-ref-format", *(() if name.startswith("refs/") else ("--branch",)), name]
    return name == "HEAD" or subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0


@pytest.fixture(scope="module")
def refusals(kube: Kubectl) -> dict[str, str]:
    packages.ensure(("git",))
    return kube.refusals({f"ref-{number}": changed(base(PATH), PATH, name) for number, name in enumerate(NAMES)})


@pytest.mark.parametrize("number", range(len(NAMES)), ids=[ascii(name)[:20] for name in NAMES])
def test_a_ref_is_taken_if_git_takes_it(refusals: dict[str, str], number: int) -> None:
    refused = "must be a branch, a tag, a commit" in refusals.get(f"ref-{number}", "")
    assert refused is not git_takes(NAMES[number])
