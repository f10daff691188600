"""The command line on a real cluster."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Plugin
from tests.support.gate import Gate
from tests.support.images import docker_config
from tests.support.signing import key_pair
from tests.support.tenant import AMD64, ARM64, BOTH, await_idle, inline

pytestmark = pytest.mark.e2e

FOLDER = {
    ".dockerignore": "# not for the builder\nsecret\n**/*.log\n!keep.log\n",
    "Dockerfile": (
        "FROM busybox:1.36 AS base\nARG GREETING\nCOPY . /app\nRUN uname -m > /machine && echo $GREETING > /greeting\n"
        "FROM base AS other\nRUN false\n"
    ),
    "src/index.js": "hello",
    "src/debug.log": "",
    "keep.log": "",
    "secret": "s3cret",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FOLDER.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "project"


@pytest.fixture
def user(plugin: Plugin) -> Plugin:
    """A user who is logged in to the registry with a password by a credential helper, as is their namespace."""
    secure = plugin.tenant.target.facts.secure_registry
    if secure is None:
        pytest.skip("the cluster has no registry with a password")
    answer = json.dumps({"ServerURL": secure.host, "Username": secure.user, "Secret": secure.password})
    plugin.program("docker-credential-test", f"#!/bin/sh\n[ $1 = get ] && grep -qx {secure.host} && echo '{answer}'\n")
    (plugin.home / ".docker").mkdir()
    config = {"credHelpers": {secure.host: "test"}}
    (plugin.home / ".docker" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    plugin.tenant.secret("registry", "kubernetes.io/dockerconfigjson", __dockerconfigjson=docker_config(secure))
    return replace(plugin, environment={"SSL_CERT_FILE": secure.ca})


def test_a_folder_becomes_an_image_for_two_platforms(user: Plugin, folder: Path) -> None:
    tenant = user.tenant
    secure = tenant.target.facts.secure_registry
    assert secure is not None
    image = f"{secure.host}/{tenant.namespace}/hello"
    argv = ["build", str(folder), "--platform", ",".join(BOTH), "-t", f"{image}:v1", "-t", image, "--target", "base"]
    argv += ["--registry-secret", "registry", "--build-arg", "GREETING=hi", "--no-cache"]

    done = user.run(*argv)
    assert done.returncode == 0, done.stderr
    ref = done.stdout.strip()
    assert re.fullmatch(rf"{image}@sha256:[0-9a-f]{{64}}", ref)
    assert {tenant.images.digest(f"{image}:{tag}") for tag in ("v1", "latest")} == {ref.partition("@")[2]}
    # Progress and logs go to standard error, a line each where there is no terminal.
    assert f"created {tenant.namespace}/hello" in done.stderr
    for platform in BOTH:
        assert re.search(rf"{platform}: Running \(Native on \S+\)", done.stderr)
        assert f"{platform}: 2/2 steps, 0 cached" in done.stderr
        assert re.search(rf"{platform} +\| #\d+ .*RUN uname -m", done.stderr)

    images = {entry["platform"]: entry for entry in json.loads(user.out("inspect", "hello", "-o", "json"))["images"]}
    assert list(images) == BOTH
    for platform, machine in ((AMD64, "x86_64"), (ARM64, "aarch64")):
        own = f"{image}@{images[platform]['digest']}"
        assert tenant.images.file(own, "/machine").strip() == machine
        assert tenant.images.file(own, "/greeting").strip() == "hi"
        assert tenant.images.file(own, "/app/src/index.js") == "hello"
        for ignored in ("/app/secret", "/app/src/debug.log"):
            with pytest.raises(KeyError):
                tenant.images.file(own, ignored)
        (attestation,) = images[platform]["attestations"]
        assert any("slsa.dev/provenance" in predicate for predicate in attestation["predicates"])
    assert ref in user.out("inspect", f"{image}:v1")

    source = json.loads(user.out("status", "hello", "-o", "json"))["spec"]["source"]["oci"]["image"]
    manifest = tenant.images.manifest(source)
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.flux.config.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.cncf.flux.content.v1.tar+gzip"]
    config = json.loads(tenant.images.blob(f"{image}@{manifest['config']['digest']}"))
    (diff_id,) = config["rootfs"]["diff_ids"]
    tag = diff_id.removeprefix("sha256:")[:32]
    assert tenant.images.digest(f"{image}:source-{tag}") == source.partition("@")[2]

    status = user.out("status", "hello")
    assert re.search(rf"{ARM64} +Native +\S+ +Succeeded +2/2 +0 +1 ", status)
    assert re.search(r"Ready +True +Succeeded", status)
    assert "hello" in user.out("list")
    only = user.out("logs", "hello", "--platform", ARM64)
    assert only
    assert all(line.startswith(f"{ARM64} | ") for line in only.splitlines())

    # The same files and options are the same build: nothing runs again, and the answer is the same.
    again = user.run(*[word for word in argv if word != "--no-cache"], "--timeout", "60s")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == ref


def test_status_and_inspect_tell_of_a_signature(plugin: Plugin) -> None:
    tenant = plugin.tenant
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cosign-key"}}
    tenant.apply({**secret, "stringData": key_pair().secret()})
    tenant.build("hello", platforms=[AMD64], output={"signing": {"secretRef": {"name": "cosign-key"}}}).succeeded()
    assert re.search(r"Signature: +sha256:[0-9a-f]{64}", plugin.out("status", "hello"))
    inspect = ["inspect", "hello", *(["--plain-http"] if tenant.target.facts.registry_insecure else [])]
    assert "Signatures:" in plugin.out(*inspect)
    assert json.loads(plugin.out(*inspect, "-o", "json"))["signatures"] == 1


SLOW = "FROM busybox:1.36\nRUN uname -m > /machine\nRUN echo slow step begins && sleep 300\n"


def test_a_run_that_is_followed_and_left_goes_on_until_it_is_cancelled(plugin: Plugin) -> None:
    tenant = plugin.tenant
    manifest = {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": {"name": "slow"},
        "spec": {
            "platforms": BOTH,
            "source": inline(SLOW),
            "output": {"image": tenant.image("slow")},
            "cache": {"mode": "Disabled"},
        },
    }
    file = plugin.home / "build.yaml"
    file.write_text(yaml.safe_dump(manifest), encoding="utf-8")

    # Ctrl-C ends the following, not the run.
    with plugin.start("build", "-f", str(file), "--progress", "plain") as following:
        assert following.stderr is not None
        for line in following.stderr:
            if re.search(rf"{AMD64} +\| .*slow step begins", line) and "RUN" not in line:
                break
        following.send_signal(signal.SIGINT)
        said = following.stderr.read()
        assert following.wait() == 130
    assert f"kubectl mab status slow --follow -n {tenant.namespace}" in said

    # The logs of both platforms, from their beginning, as long as one likes.
    with plugin.start("logs", "slow", "-f") as logs:
        assert logs.stdout is not None
        begun = set[str]()
        for line in logs.stdout:
            if "slow step begins" in line and "RUN" not in line:
                begun.add(line.partition(" ")[0])
            if begun == set(BOTH):
                break
        logs.send_signal(signal.SIGINT)
        assert logs.wait() == 130

    status = plugin.out("status", "slow")
    assert re.search(rf"{AMD64} +Native +\S+ +Running +1/2 +0 +1 ", status), status
    assert (
        "slow"
        in subprocess.run(
            ["kubectl", "__complete", "mab", "status", "-n", tenant.namespace, ""],
            env=plugin.env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )

    late = plugin.run("status", "slow", "--follow", "--timeout", "1s", "--progress", "quiet")
    assert (late.returncode, late.stdout) == (124, "")

    # On a terminal there are bars, which change their width with it.
    with terminal(plugin, "status", "slow", "--follow", columns=100) as (process, screen):
        for text in screen:
            if text.count("slow step") == len(BOTH) and text.count("1/2") == len(BOTH):
                break
        assert "━" in text
        assert max(map(len, text.splitlines())) <= 100
        assert plugin.out("cancel", "slow") == ""
        *_, text = screen
        assert process.wait() == 1
    assert "Cancelled" in text
    assert json.loads(plugin.out("status", "slow", "-o", "json"))["status"]["run"]["result"] == "Cancelled"
    assert plugin.run("cancel", "slow").returncode == 0


def test_a_run_that_fails_ends_with_1_and_shows_why(plugin: Plugin) -> None:
    build = plugin.tenant.build(
        platforms=[AMD64], source=inline("FROM busybox:1.36\nRUN echo the end is near; exit 7\n")
    )
    done = plugin.run("status", build.name, "--follow")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the end is near" in done.stderr.partition("--- linux/amd64")[2]
    assert "error: BuildFailed: " in done.stderr
    # While it is suspended nothing is started, and that is said; afterwards the request that came meanwhile counts.
    first = build.status["run"]["id"]
    plugin.out("suspend", build.name)
    waiting = plugin.run("rebuild", build.name, "--follow")
    assert waiting.returncode == 1
    assert f"kubectl mab resume {build.name}" in waiting.stderr
    assert build.status["run"]["id"] == first
    plugin.out("resume", build.name)
    again = plugin.run("rebuild", build.name, "--follow")
    assert again.returncode == 1
    assert "the end is near" in again.stderr
    assert build.status["run"]["id"] != first
    assert plugin.run("status", "nothing").returncode == 3


def test_answers_for_programs_are_those_of_kubectl(plugin: Plugin) -> None:
    tenant = plugin.tenant
    build = tenant.build("app", platforms=[AMD64], source=inline("FROM scratch\nCOPY Dockerfile /\n"))
    build.succeeded()
    templates = (
        "{.status.image.digest}",
        "{.spec.platforms[*]}",
        "{.spec}",
        '{.status.conditions[?(@.type=="Ready")].reason}',
        '{range .status.conditions[*]}{.type}={.status}{"\\n"}{end}',
        "{.status.run.platforms[0].nothing}",
    )
    for template in templates:
        expected = tenant.target.kubectl("get", "mab", "app", "-n", tenant.namespace, "-o", f"jsonpath={template}")
        ours = plugin.out("status", "app", "-o", f"jsonpath={template}")
        assert (json.loads(ours) == json.loads(expected)) if template == "{.spec}" else ours == expected
    assert plugin.out("list", "-o", "name") == "multiarchbuild.multiarch.build/app\n"

    tenant.target.kubectl("label", "mab", "app", "-n", tenant.namespace, "team=payments")
    assert "app" in plugin.out("list", "-l", "team=payments")
    assert plugin.out("list", "-l", "team=other") == ""
    # What kubectl refuses to another user is refused here too.
    refused = plugin.run("--as", "nobody", "list")
    assert refused.returncode == 3
    assert 'User "nobody" cannot list' in refused.stderr


def test_a_watched_list_has_a_line_for_each_change(plugin: Plugin) -> None:
    build = plugin.tenant.build("app", platforms=[AMD64], source=inline("FROM scratch\nCOPY Dockerfile /\n"))
    with plugin.start("list", "--watch") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:3] == ["NAME", "READY", "REASON"]
        for line in watching.stdout:
            if line.split()[:3] == ["app", "True", "Succeeded"]:
                break
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 130
    build.succeeded()


def test_a_name_from_an_image_replaces_no_build_of_another_image(plugin: Plugin, folder: Path) -> None:
    tenant = plugin.tenant
    own = tenant.image("api")
    tenant.build("api", platforms=[AMD64], source=inline("FROM scratch\nCOPY Dockerfile /\n"), output={"image": own})
    other = f"{tenant.target.facts.registry}/team-b/{tenant.namespace}/api:v1"
    refused = plugin.run("build", str(folder), "-t", other, "--platform", AMD64, "--plain-http")
    assert refused.returncode == 2
    assert "--name" in refused.stderr
    assert json.loads(plugin.out("status", "api", "-o", "json"))["spec"]["output"]["image"] == own


class terminal:  # noqa: N801 - reads as a function
    """A command in a terminal of some columns, with the text that it draws since the frame before."""

    def __init__(self, plugin: Plugin, *words: str, columns: int) -> None:
        self._controller, worker = pty.openpty()
        fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        env = {**plugin.env, "TERM": "xterm", "NO_COLOR": "1"}
        env.pop("COLUMNS", None)
        self._process = subprocess.Popen(plugin.argv(*words), env=env, stdin=worker, stdout=worker, stderr=worker)
        os.close(worker)

    def __enter__(self) -> "tuple[subprocess.Popen[bytes], Iterator[str]]":
        return self._process, self._screens()

    def _screens(self) -> Iterator[str]:
        text = ""
        while True:
            try:
                text += os.read(self._controller, 65536).decode(errors="replace")
            except OSError:
                # That is how a terminal says that nobody is there any more.
                return
            # Codes that move the cursor are no text.
            yield re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.rpartition("\x1b[2K")[2] or text)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._controller)


def test_the_doctor_finds_what_builds_need_and_what_a_namespace_refuses(plugin: Plugin) -> None:
    tenant = plugin.tenant
    done = plugin.run("doctor", "--probe")
    assert done.returncode == 0, done.stdout + done.stderr
    for found in ("Kubernetes: v1.", "operator: version ", "your rights: ", "Pod Security: ", "user namespaces: "):
        assert f"ok       {found}" in done.stdout
    assert tenant.list("pods") == [], "what it tried is deleted"
    tenant.kubectl("label", "namespace", tenant.namespace, "pod-security.kubernetes.io/enforce=restricted")
    refused = plugin.run("doctor", "-o", "json")
    assert refused.returncode == 1
    (missing,) = [found for found in json.loads(refused.stdout)["items"] if found["level"] == "missing"]
    assert "violates PodSecurity" in missing["message"]
    assert "pod-security.kubernetes.io/enforce=privileged" in missing["remedy"]


def test_a_report_has_what_an_issue_needs(plugin: Plugin) -> None:
    plugin.tenant.build(source=inline("FROM busybox:1.36\nRUN echo told && false\n"), platforms=[AMD64]).failed(
        "BuildFailed"
    )
    out = plugin.out("report", "app")
    for part in (
        "### kubectl mab doctor",
        "### MultiArchBuild ",
        "reason: BuildFailed",
        "RunStarted",
        "### Log of app-",
        "told",
    ):
        assert part in out


def test_logs_of_a_kept_builder_are_those_of_the_run(plugin: Plugin, gate: Gate) -> None:
    cache = {"repository": plugin.tenant.image("cache")}
    fields: dict[str, Any] = {"platforms": [AMD64], "cache": cache, "scheduling": {"keepBuilder": "10m"}}
    build = plugin.tenant.build("kept", source=inline("FROM busybox:1.36\nRUN echo it is number 0\n"), **fields)
    runs = [build.succeeded()["run"]]
    # On a busy machine a builder may not begin in time: then another one builds, and stays for the next run.
    while len(runs) < 5 and runs[-1]["platforms"][0]["builder"] != "Kept":
        number = len(runs)
        await_idle(plugin.tenant, runs[-1]["platforms"][0]["pod"])
        waits = f"echo it is number {number} && {gate.wait(str(number))}"
        build.patch(source=inline(f"FROM busybox:1.36\nRUN {waits}\n"))
        build.until(lambda status: status["run"]["id"] != runs[-1]["id"], why="the next run has started")
        with plugin.start("status", build.name, "--follow", "--progress=plain") as following:
            assert following.stderr is not None
            shown = ""
            for line in following.stderr:
                shown += line
                # Not the instruction, but what it prints.
                if f"it is number {number}" in line and "RUN" not in line:
                    gate.open(str(number))
            assert following.wait() == 0, shown
        assert f"it is number {number - 1}" not in shown
        runs.append(build.succeeded(after=runs[-1]["id"])["run"])
    assert runs[-1]["platforms"][0]["builder"] == "Kept", [run["platforms"][0] for run in runs]
    assert "Kept" in plugin.out("status", build.name)
    for number, run in list(enumerate(runs))[-2:]:
        logs = plugin.out("logs", build.name, "--run", run["id"])
        told = {other for other in range(len(runs)) if f"it is number {other}" in logs}
        assert told == {number}
