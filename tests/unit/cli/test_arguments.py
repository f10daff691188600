"""The command line: what it takes, what it refuses, and with which exit code."""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from multiarchbuild import __version__
from multiarchbuild.cli import main
from multiarchbuild.cli.arguments import Command, commands, seconds

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without kubeconfig and docker config."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BUILD = {
    "apiVersion": "multiarch.build/v1alpha1",
    "kind": "MultiArchBuild",
    "metadata": {"name": "app", "namespace": "team"},
    "spec": {},
}


def exit_code(argv: Sequence[str]) -> int:
    try:
        return main(argv)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_help_tells_every_command_and_every_exit_code(capsys: Output) -> None:
    assert exit_code(["--help"]) == 0
    text = capsys.readouterr().out
    _, known = commands()
    assert all(f"    {command.name} " in text or f"    {command.name}\n" in text for command in known)
    assert [line.split()[0] for line in text.partition("exit codes:\n")[2].splitlines()] == [
        *("0", "1", "2", "3", "4", "124", "130")
    ]


@pytest.mark.parametrize(("words", "same"), [(["help"], ["--help"]), (["help", "logs"], ["logs", "--help"])])
def test_help_is_a_command_too(words: list[str], same: list[str], capsys: Output) -> None:
    assert exit_code(words) == 0
    told = capsys.readouterr().out
    assert exit_code(same) == 0
    assert told == capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: Output) -> None:
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["status"],
        ["list", "-o", "xml"],
        ["status", "app", "--timeout", "soon"],
        ["logs", "app", "--tail", "some"],
        ["build", ".", "--platfrom", "linux/amd64"],
        ["completion", "tcsh"],
    ],
)
def test_what_argparse_refuses_is_a_mistake_in_usage(argv: list[str], capsys: Output) -> None:
    assert exit_code(argv) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list"], "no cluster to work with"),
        (["list", "--kubeconfig", "nowhere"], "nowhere does not exist"),
        (["build"], "name a folder to build"),
        (["build", "-f", "nowhere.yaml"], "cannot read nowhere.yaml: No such file or directory"),
        (["build", "-f", "broken.yaml"], "broken.yaml is not YAML"),
        (["build", "-f", "other.yaml"], "must hold one MultiArchBuild"),
        (["build", "-f", "build.yaml", "--tag", "r.test/a"], "--tag is for the build of a folder"),
        (["build", "-f", "build.yaml", "-n", "other"], "is for namespace team, --namespace says other"),
        (["build", "nowhere", "-t", "r.test/a", "--platform", "amd64"], "nowhere is not a folder"),
        (["build", ".", "--platform", "amd64"], "name the image with --tag"),
        (["logs", "app", "--platform", "linux/vax"], "no cluster to work with"),
    ],
)
def test_a_mistake_of_the_user_ends_with_2_and_says_what(
    nowhere: Path, argv: list[str], message: str, capsys: Output
) -> None:
    (nowhere / "broken.yaml").write_text("a: [", encoding="utf-8")
    (nowhere / "other.yaml").write_text(f"{json.dumps(BUILD)}\n---\n{json.dumps(BUILD)}", encoding="utf-8")
    (nowhere / "build.yaml").write_text(json.dumps(BUILD), encoding="utf-8")
    assert exit_code(argv) == 2
    assert message in capsys.readouterr().err


def test_a_context_that_is_not_there_is_named_with_those_that_are(nowhere: Path, capsys: Output) -> None:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "one",
    }
    (nowhere / "config").write_text(json.dumps(config), encoding="utf-8")
    assert exit_code(["list", "--kubeconfig", "config", "--context", "two"]) == 2
    assert "config has no context 'two': name one with --context; contexts: one" in capsys.readouterr().err
    assert exit_code(["list", "--kubeconfig", "config"]) == 4
    assert "the API server does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["-n", "team-a", "--context", "one", "list"],
        ["list", "-n", "team-a", "--context", "one"],
        ["--context=one", "list", "--namespace=team-a"],
    ],
)
def test_options_of_the_cluster_stand_before_or_after_the_command(argv: Sequence[str]) -> None:
    parser, _ = commands()
    read = parser.parse_args(argv)
    assert (read.command, read.namespace, read.context) == ("list", "team-a", "one")


@pytest.mark.parametrize(("text", "duration"), [("5", 5.0), ("0", 0.0), ("1m30s", 90.0)])
def test_request_timeouts_are_written_as_for_kubectl(text: str, duration: float) -> None:
    parser, _ = commands()
    assert parser.parse_args(["list", "--request-timeout", text]).request_timeout == duration


@pytest.mark.parametrize("port", ["65536", "-1", "http", "1" * 5000])
def test_a_port_that_cannot_be_is_a_mistake_in_usage(port: str, capsys: Output) -> None:
    assert exit_code(["ui", f"--port={port}"]) == 2
    assert "is not a port" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["table", "jsonpath", "jsonpath=", "json=x", "wide"])
def test_an_unknown_form_is_refused_with_those_that_are_known(form: str, capsys: Output) -> None:
    assert exit_code(["status", "app", "-o", form]) == 2
    assert "is not one of name, json, yaml, jsonpath=TEMPLATE" in capsys.readouterr().err


def test_a_group_is_impersonated_with_a_user_only(capsys: Output) -> None:
    assert exit_code(["list", "--as-group", "dev"]) == 2
    assert "--as-group needs --as" in capsys.readouterr().err


@pytest.mark.parametrize("command", [command.name for command in commands()[1]])
def test_the_help_of_a_command_fits_a_terminal(command: str, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= (50 if command == "build" else 24), len(lines)
    assert max(map(len, lines)) <= 80


def test_the_help_of_all_fits_a_screen(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", commands()[1], ids=lambda command: command.name)
def test_examples_in_the_help_are_commands(command: Command) -> None:
    parser, _ = commands()
    _, _, told = command.parser.format_help().partition("examples:\n")
    examples = [line.removeprefix("  kubectl mab ") for line in told.splitlines() if line.startswith("  ")]
    assert examples
    for example in examples:
        assert parser.parse_args(shlex.split(example.partition(" > ")[0])).command == command.name


def test_a_dry_run_prints_what_would_be_applied_and_talks_to_nobody(nowhere: Path, capsys: Output) -> None:
    (nowhere / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    argv = ["build", ".", "-t", "r.test/team/app:v1", "--platform", "linux/amd64", "--dry-run"]
    assert exit_code([*argv, "-n", "team"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["metadata"] == {"name": "app", "namespace": "team"}
    source = printed["spec"]["source"]["oci"]["image"]
    assert source.startswith("r.test/team/app@sha256:")
    # The same files are the same source, whatever becomes of them.
    assert exit_code([*argv, "-o", "json", "--source-repository", "r.test/sources", "--name", "other"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["spec"]["source"]["oci"]["image"] == source.replace("team/app", "sources")
    assert printed["metadata"] == {"name": "other"}


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("1h30m", 5400), ("2m5s", 125)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "1.5h", "5s1m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 90s"):
        seconds(text)
