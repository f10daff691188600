"""Completion: what is offered, by kubectl's protocol; and the scripts in real shells."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multiarchbuild.api.platforms import SUPPORTED
from multiarchbuild.cli.arguments import commands
from multiarchbuild.cli.complete import answer, script

ROOT = Path(__file__).parents[3]


def offered(*words: str) -> list[str]:
    *lines, directive = answer(words).splitlines()
    assert directive.startswith(":")
    return [line.partition("\t")[0] for line in lines]


def test_commands_come_with_what_they_do() -> None:
    assert offered("") == sorted(command.name for command in commands()[1])
    assert answer(["sta"]) == "status\tshow platforms, conditions and messages of a build\n:4\n"


SHARED = (*("--as", "--as-group", "--as-uid", "--context", "--kubeconfig", "--namespace", "--request-timeout"),)
"""Options that every command that asks the cluster has, and that may stand before it."""


def test_options_before_the_command() -> None:
    assert offered("--") == sorted(SHARED)
    assert offered("-n", "team-a", "lis") == ["list"]
    assert offered("--namespace=team-a", "status", "--foll") == ["--follow"]
    assert offered("-n", "team-a", "list", "-o", "ya") == ["yaml"]


def test_reasons_are_offered_to_explain() -> None:
    assert offered("explain", "NoB") == ["NoBuilder"]


def test_a_key_press_loads_no_slow_library() -> None:
    words = "import sys; from multiarchbuild.cli import complete; complete.answer(['sta']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert not {"kubernetes", "pydantic", "rich", "urllib3"} & set(done.stdout.split())


def test_options_of_a_command() -> None:
    assert offered("list", "--") == sorted([*SHARED, "--all-namespaces", "--output", "--selector", "--watch"])
    assert "--no-follow" in offered("build", ".", "--no-")
    assert offered("nonsense", "--") == []


def test_values_of_an_option() -> None:
    assert offered("list", "-o", "") == ["json", "jsonpath=", "name", "wide", "yaml"]
    # A template follows without a space.
    assert answer(["list", "-o", "jsonp"]).endswith(":6\n")
    assert offered("build", "--progress", "p") == ["plain"]
    assert offered("build", "--platform", "linux/amd64,linux/arm6") == [
        *("linux/amd64,linux/arm64", "linux/amd64,linux/arm64/v8")
    ]
    assert offered("logs", "app", "--platform", "") == sorted(SUPPORTED)


@pytest.mark.parametrize(
    ("words", "directive"),
    [
        (["build", ""], 16),
        (["build", ".", "-f", ""], 0),
        (["build", "."], 16),
        (["build", ".", ""], 4),
        (["list", ""], 4),
    ],
)
def test_files_and_folders_are_left_to_the_shell(words: list[str], directive: int) -> None:
    assert answer(words) == f":{directive}\n"


def test_contexts_are_those_of_the_kubeconfig(tmp_path: Path) -> None:
    config = {"contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("one", "two")]}
    (tmp_path / "config").write_text(json.dumps({**config, "current-context": "one"}), encoding="utf-8")
    assert offered("list", "--kubeconfig", str(tmp_path / "config"), "--context", "") == ["one", "two"]


def test_a_cluster_that_is_away_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    assert answer(["status", "--kubeconfig", str(tmp_path / "nowhere"), ""]) == ":4\n"


BASH = """
source <(python -m multiarchbuild cli completion bash)
COMP_WORDS=(kubectl-mab build . --progress pl); COMP_CWORD=4
_kubectl_mab; printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -Uz compinit; compinit -u -d "$TMP/zcompdump"
source <(python -m multiarchbuild cli completion zsh)
_describe() { print -l -- ${(P)2} }
words=(kubectl-mab build . --progress pl); CURRENT=5
_kubectl_mab
"""
FISH = """
python -m multiarchbuild cli completion fish | source
complete -C 'kubectl-mab build . --progress pl'
"""


@pytest.mark.parametrize(("shell", "text"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_the_script_works_in_its_shell(shell: str, text: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    helper = tmp_path / "kubectl_complete-mab"
    helper.write_text(
        f"#!{sys.executable}\nfrom multiarchbuild.cli import complete_main\nraise SystemExit(complete_main())\n",
        encoding="utf-8",
    )
    helper.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT / "operator"),
        "HOME": str(tmp_path),
        "TMP": str(tmp_path),
    }
    done = subprocess.run([program, "-c", text], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["plain"], (done.stdout, done.stderr)


def test_there_is_a_script_for_each_shell_that_is_offered() -> None:
    assert all("kubectl_complete-mab" in script(shell) for shell in offered("completion", ""))
