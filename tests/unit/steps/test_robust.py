"""What a repository, a Secret or a log may hold to make a step stumble, leak, or leave its folder."""

import base64
import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.inputs import Inputs, Registry
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Failure, load
from multiarchbuild.api.source import GitSource
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.http import LIMIT
from multiarchbuild.oci.names import Repository
from multiarchbuild.steps import build, credentials, git, registries, source
from multiarchbuild.steps.classify import classify
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.mounts import Mounts
from multiarchbuild.steps.progress import Progress
from multiarchbuild.steps.termination import conclude
from multiarchbuild.steps.trust import ca_file

URL = "https://git.test/app"


def spec(**parts: Any) -> Spec:
    """Return a spec of a git source with a Secret."""
    return Spec.model_validate(
        {
            "platforms": ["linux/amd64"],
            "source": {"git": {"url": URL, "secretRef": {"name": "token"}}},
            "output": {"image": "registry.test/team/app", "secretRefs": [{"name": "push"}]},
            **parts,
        }
    )


def mounted(
    root: Path, secrets: Mapping[str, Mapping[str, bytes]] | None = None, *, plain_http: str = "", **parts: Any
) -> Mounts:
    """Return the mounts of a pod with these Secrets, by their folders."""
    mounts = Mounts(root)
    registries = (Registry(host=plain_http, plain_http=True),) if plain_http else ()
    inputs = Inputs(namespace="team", name="app", run="r", spec=spec(**parts), registries=registries)
    for folder in (paths.INPUTS, paths.WORK, "/dev"):
        mounts.at(folder).mkdir(parents=True)
    (mounts.at(paths.INPUTS) / paths.INPUTS_FILE).write_text(inputs.model_dump_json(by_alias=True, exclude_none=True))
    for folder, keys in (secrets or {}).items():
        mounts.at(folder).mkdir(parents=True)
        for key, value in keys.items():
            (mounts.at(folder) / key).write_bytes(value)
    return mounts


# The source


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a commit's files, beside a Secret that is none of them."""
    folder = tmp_path / "context"
    (folder / "app").mkdir(parents=True)
    (folder / "file").touch()
    (tmp_path / "secret").mkdir()
    links = {
        "inside": "app",
        "absolute": str(tmp_path / "secret"),
        "relative": "../secret",
        "circle": "circle",
        "dangling": "none",
        "self": ".",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "app" / "up").symlink_to("../..")
    return folder


@pytest.mark.parametrize(("subdirectory", "found"), [("", ""), ("app", "app"), ("inside", "app"), ("self/app", "app")])
def test_a_folder_of_the_commit_is_the_context(checkout: Path, subdirectory: str, found: str) -> None:
    assert source._inside(checkout, subdirectory, "git") == checkout / found


@pytest.mark.parametrize(
    "subdirectory",
    [
        *("absolute", "relative", "app/up", "app/up/secret", "..", "../secret", "/etc"),
        *("circle", "circle/x", "dangling", "file", "none", "x" * 1000),
    ],
    ids=lambda name: name[:20],
)
def test_nothing_outside_the_commit_ever_is(checkout: Path, subdirectory: str) -> None:
    with pytest.raises(StepError, match="has no folder") as raised:
        source._inside(checkout, subdirectory, "git")
    assert raised.value.reason is Reason.DOCKERFILE_NOT_FOUND


@pytest.mark.parametrize(
    "files", [{"a": "", "a/b": ""}, {"a/b/c/d": "", "a/b": ""}, {"Dockerfile/x": "", "Dockerfile": ""}], ids=str
)
def test_a_path_is_a_file_or_a_folder(files: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="rename one of them"):
        spec(source={"inline": {"files": files}})


def test_paths_that_only_begin_alike_are_fine() -> None:
    assert spec(source={"inline": {"files": {"a": "", "ab/c": "", "a.b/c": "", "b/a/c": ""}}})


@pytest.mark.parametrize("url", ["https://h:99999/x", "https://h:x/x", "https://h:0/x", "https://[::1/x", "https://[/"])
def test_a_url_with_a_port_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must name a host"):
        GitSource(url=url)


@pytest.mark.parametrize("url", ["https://h/x", "https://h:8443/x", "http://[::1]:80/x", "https://h:/x"])
def test_other_urls_are_not(url: str) -> None:
    assert GitSource(url=url).url == url


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", ".test"])
def test_a_host_that_no_name_server_can_know_is_unreachable(host: str) -> None:
    with pytest.raises(StepError, match="cannot be reached") as raised:
        git._check_host(f"https://{host}/app")
    assert raised.value.reason is Reason.GIT_UNREACHABLE


# Secrets


@pytest.mark.parametrize(
    "keys",
    [
        {"password": b"\xff\xfe"},
        {"password": b"p", "username": b"\xff"},
        {"password": b"p", "username": b"\n"},
        {"password": b"p\nq"},
        {"password": b"p", "username": b"u\nv"},
        {"token": b"a\0b"},
        {"password": b""},
        {"token": b"\r\n"},
        {"tokens": b"t"},
    ],
    ids=str,
)
def test_a_git_secret_that_cannot_be_used_is_told_and_not_shown(tmp_path: Path, keys: dict[str, bytes]) -> None:
    mounts = mounted(tmp_path, {paths.GIT: keys})
    with pytest.raises(StepError) as raised:
        credentials.git_credentials(mounts)
    assert raised.value.reason is Reason.SECRET_INVALID
    assert "'token' of source.git.secretRef" in raised.value.message


@pytest.mark.parametrize(
    "config",
    [b"\xff", b"not json: hunter2", b'{"auths": {"r.test": {"auth": "hunter2"}}}', b"[" * 100_000],
    ids=["bytes", "text", "no base64", "deep"],
)
def test_a_docker_config_that_cannot_be_used_is_told_and_not_shown(tmp_path: Path, config: bytes) -> None:
    mounts = mounted(tmp_path, {f"{paths.DOCKER}/0": {".dockerconfigjson": config}})
    with pytest.raises(StepError) as raised:
        registries.client(mounts, credentials.registry_keychain(mounts), "r.test/team/app")
    assert raised.value.reason is Reason.SECRET_INVALID
    assert "The Secret 'push' of output.secretRefs[0] cannot be used" in raised.value.message
    assert "hunter2" not in raised.value.message + raised.value.log_tail


def test_a_secret_that_names_a_credential_helper_says_what_to_do(tmp_path: Path) -> None:
    config = b'{"auths": {"r.test": {}}, "credsStore": "desktop"}'
    mounts = mounted(tmp_path, {f"{paths.DOCKER}/0": {".dockerconfigjson": config}})
    keychain = credentials.registry_keychain(mounts)
    assert credentials.registry_credentials(mounts, keychain, Repository.parse("public.test/app")) is None
    with pytest.raises(StepError, match=r"'push'.*'desktop'.*kubectl create secret docker-registry") as raised:
        credentials.registry_credentials(mounts, keychain, Repository.parse("r.test/app"))
    assert raised.value.reason is Reason.SECRET_INVALID


def test_the_git_password_is_neither_an_argument_nor_configuration(tmp_path: Path) -> None:
    mounts = mounted(tmp_path, {paths.GIT: {"username": b"ada", "password": b"hunter2"}})
    env = git._environment(mounts, GitSource.model_validate({"url": URL, "secretRef": {"name": "token"}}))
    holds = {name for name, value in env.items() if "hunter2" in value}
    assert holds == {"MULTIARCHBUILD_GIT_PASSWORD"}
    helpers = [value for name, value in env.items() if name.startswith("GIT_CONFIG_KEY") and "credential" in value]
    assert helpers == ["credential.https://git.test.helper"], "no other host is handed it"


def test_neither_log_nor_result_of_a_step_that_has_a_bug_shows_what_it_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mounts = mounted(tmp_path, {paths.GIT: {"password": b"hunter2"}})

    def step() -> Any:
        held = credentials.git_credentials(mounts)
        raise RuntimeError(f"{len(held) if isinstance(held, tuple) else 0} things held")

    assert conclude(mounts, step) == 1
    message = mounts.termination_log.read_text()
    result = load(message)
    assert isinstance(result, Failure)
    assert (result.reason, result.message) == (Reason.STEP_FAILED, "The step has a bug: RuntimeError: 2 things held")
    assert "hunter2" not in message + capsys.readouterr().out


def test_the_ca_bundle_is_whole_whenever_a_thread_reads_it(tmp_path: Path) -> None:
    mounts = mounted(tmp_path)
    (mounts.at(paths.INPUTS) / paths.CA_FILE).write_text("own\n" * 100_000)
    own = mounts.at(paths.INPUTS) / paths.CA_FILE

    def look(_: int) -> bool:
        written = ca_file.__wrapped__(mounts)
        return Path(written or os.devnull).read_bytes().endswith(own.read_bytes())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(look, range(64)))
    assert [path.name for path in mounts.work.iterdir()] == ["ca.crt"]


# The cache


class Endless(BaseHTTPRequestHandler):
    """Answers with more than anybody wants to read, as long as somebody does."""

    sent = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while Endless.sent < 64 * LIMIT:
                self.wfile.write(bytes(LIMIT))
                Endless.sent += LIMIT

    def log_message(self, *_: object) -> None:
        pass


def test_a_cache_whose_registry_misbehaves_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        mounts = mounted(tmp_path, plain_http=host)
        usable = build._usable_caches(mounts, Keychain(), [f"{host}/cache:a", "registry.test/team/app:cache-b"])
        server.shutdown()
    assert usable == {"registry.test/team/app:cache-b"}
    assert Endless.sent < 8 * LIMIT, "what is too much is not read"
    assert f"building without the cache at {host}: {host} sends too much" in capsys.readouterr().out


# The log


def rawjson(**parts: Any) -> str:
    """Return one line of buildctl's progress."""
    return json.dumps(parts)


def test_a_line_of_megabytes_costs_neither_memory_nor_time() -> None:
    progress = Progress()
    list(progress.feed(rawjson(vertexes=[{"digest": "d", "name": "[2/2] RUN x", "started": "2026-01-01T00:00:00Z"}])))
    for _ in range(40):
        data = base64.b64encode(b"failed to mount " * 16_384 + b"the end\n").decode()
        list(progress.feed(rawjson(logs=[{"vertex": "d", "data": data, "timestamp": "2026-01-01T00:00:01Z"}])))
    failed = {"digest": "d", "name": "[2/2] RUN x", "error": 'process "x" did not complete successfully: exit code: 1'}
    list(progress.feed(rawjson(vertexes=[failed])))
    began = time.process_time()
    error = classify(spec(), progress)
    assert time.process_time() - began < 1
    assert error.reason is Reason.BUILD_FAILED
    assert "the end" in error.log_tail
    assert len(error.log_tail) <= 3000


_RUNC = "runc run failed: unable to start container process: error during container init: error mounting proc: "


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (f"{_RUNC}operation not permitted", Reason.BUILDER_UNSUPPORTED),
        (f"{_RUNC}permission denied", Reason.BUILDER_UNSUPPORTED),
        (f"compiling\n{_RUNC}operation not permitted", Reason.BUILD_FAILED),
        ("failed to mount /proc\nreason: permission denied", Reason.BUILD_FAILED),
        ("rm: permission denied\nfailed to mount", Reason.BUILD_FAILED),
        ("rm: permission denied", Reason.BUILD_FAILED),
    ],
)
def test_a_sandbox_that_a_node_refuses_is_told_from_a_program_that_is_denied(printed: str, reason: Reason) -> None:
    progress = Progress()
    vertex = {"digest": "d", "name": "[2/2] RUN x", "started": "2026-01-01T00:00:00Z"}
    data = base64.b64encode(f"{printed}\n".encode()).decode()
    list(progress.feed(rawjson(vertexes=[vertex], logs=[{"vertex": "d", "data": data}])))
    list(
        progress.feed(
            rawjson(vertexes=[{**vertex, "error": 'process "x" did not complete successfully: exit code: 1'}])
        )
    )
    assert classify(spec(), progress).reason is reason
