"""Each kind of source becomes the build context that it says, or a failure that says what to do."""

import base64
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Resolved, Source
from multiarchbuild.steps import archive
from tests.steps.conftest import PASSWORD, USER, Pods, Services, docker_config
from tests.steps.servers import GitServer
from tests.steps.source_servers import FileServer, SshServer, make_key, ssh_server
from tests.support.artifacts import CONTENT, Registry, sha256, tar
from tests.support.ports import free_port

BUILD = ("build", "--platform=linux/amd64")
SHOW = "FROM busybox:1.36\nCOPY . /src\nRUN cat /src/hello.txt && date -r /src/hello.txt +at-%s\n"
FILES = {"Dockerfile": SHOW, "hello.txt": "hello\n"}


def saying(text: str) -> dict[str, str]:
    """Return files of a build that prints `text`; what was printed once comes from the cache afterwards."""
    return {**FILES, "hello.txt": f"{text}\n"}


@pytest.fixture
def files() -> Iterator[FileServer]:
    with FileServer().serving() as server:
        yield server


@pytest.fixture(scope="session")
def sshd(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    del services  # they have installed it
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


@pytest.fixture
def registry(services: Services) -> Registry:
    return Registry(services.registry)


def http(server: FileServer, content: bytes, path: str = "app.tar.gz", **more: Any) -> dict[str, Any]:
    server.files[path] = content
    return {"http": {"url": server.url(path), "checksum": sha256(content), **more}}


# http


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz", "w:zst"])
def test_a_tar_is_built_and_dated_by_its_newest_file(
    pod: Pods, files: FileServer, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pod(source=http(files, tar(saying(f"hello {mode}"), mode=mode))).built()
    log = capfd.readouterr().out
    assert f"hello {mode}\n" in log
    assert "at-1700000000\n" in log


def test_a_zip_is_built_with_its_links_and_modes(
    pod: Pods, files: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Dockerfile").write_text("FROM busybox:1.36\nCOPY . /src\nRUN /src/run && readlink /src/link\n")
    (tree / "run").write_text("#!/bin/sh\necho it runs\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("run")
    script = (
        "import zipfile, os, stat\n"
        "z = zipfile.ZipFile('app.zip', 'w')\n"
        "for name in ('Dockerfile', 'run'): z.write(name)\n"
        "i = zipfile.ZipInfo('link'); i.create_system = 3; i.external_attr = (stat.S_IFLNK | 0o777) << 16\n"
        "z.writestr(i, 'run')\n"
        "z.close()\n"
    )
    subprocess.run(["python3", "-c", script], cwd=tree, check=True)
    pod(source=http(files, (tree / "app.zip").read_bytes(), "app.zip")).built()
    log = capfd.readouterr().out
    assert "it runs\n" in log
    assert "run\n" in log


def test_a_folder_of_an_archive_is_built(pod: Pods, files: FileServer) -> None:
    content = tar({"app-1.0/Dockerfile": "FROM busybox:1.36\n", "README": ""})
    assert pod(source=http(files, content, subdirectory="app-1.0")).built().digest
    failure = pod(source=http(files, content, subdirectory="app-2.0")).failed(*BUILD)
    assert (failure.reason, "source.http.subdirectory" in failure.message) == (Reason.DOCKERFILE_NOT_FOUND, True)


def test_an_archive_that_was_changed_is_not_unpacked_and_its_checksum_is_told(pod: Pods, files: FileServer) -> None:
    source = http(files, tar(FILES))
    files.files["app.tar.gz"] = changed = tar({**FILES, "evil": ""})
    failure = pod(source=source).failed(*BUILD)
    assert failure.reason is Reason.SOURCE_CHECKSUM_MISMATCH
    assert f"has the checksum {sha256(changed)}" in failure.message


@pytest.mark.parametrize(
    ("secret", "authorization"),
    [
        ({"username": "ci", "password": "s3cret\n"}, f"Basic {base64.b64encode(b'ci:s3cret').decode()}"),
        ({"token": "t0ken"}, "Bearer t0ken"),
    ],
    ids=["basic", "bearer"],
)
def test_a_private_archive(pod: Pods, files: FileServer, secret: dict[str, str], authorization: str) -> None:
    files.authorization = authorization
    source = http(files, tar(FILES), "private/app.tar.gz", secretRef={"name": "files"})
    assert pod({"http": secret}, source=source).built().digest


def test_a_redirect_to_another_host_is_followed_without_the_credentials(pod: Pods, files: FileServer) -> None:
    source = http(files, content := tar(FILES), "private/app.tar.gz", secretRef={"name": "files"})
    files.authorization = "Bearer t0ken"
    with FileServer({"app.tar.gz": content}).serving() as other:
        files.moved["private/app.tar.gz"] = other.url("app.tar.gz", "localhost")
        assert pod({"http": {"token": "t0ken"}}, source=source).built().digest
        assert other.asked == [("app.tar.gz", "")]
    assert files.asked == [("private/app.tar.gz", "Bearer t0ken")]


def test_a_server_that_is_busy_is_asked_again(pod: Pods, files: FileServer) -> None:
    files.failures = 2
    assert pod(source=http(files, tar(FILES))).built().digest


@pytest.mark.parametrize(
    ("path", "secret", "reason", "words"),
    [
        ("none.tar.gz", None, Reason.SOURCE_NOT_FOUND, "answered 404"),
        ("private/app.tar.gz", None, Reason.SOURCE_DENIED, "source.http.secretRef"),
        ("private/app.tar.gz", {"token": "wrong"}, Reason.SOURCE_DENIED, "not accepted"),
        ("app.tar.gz", {}, Reason.SECRET_NOT_FOUND, "source.http.secretRef names the Secret 'files'"),
        ("app.tar.gz", {"password": "x"}, Reason.SECRET_INVALID, "needs `username` and `password`, or `token`"),
        ("app.tar.gz", {"token": "a\nb"}, Reason.SECRET_INVALID, "one line"),
    ],
)
def test_failures_of_downloads_have_their_reasons(
    pod: Pods, files: FileServer, path: str, secret: dict[str, str] | None, reason: Reason, words: str
) -> None:
    files.authorization = "Bearer t0ken"
    files.files |= {"app.tar.gz": b"", "private/app.tar.gz": b""}
    more = {} if secret is None else {"secretRef": {"name": "files"}}
    source = {"http": {"url": files.url(path), "checksum": sha256(b""), **more}}
    failure = pod({"http": secret} if secret else {}, source=source).failed(*BUILD)
    assert (failure.reason, words in failure.message) == (reason, True), failure.message


def test_a_server_that_is_not_there(pod: Pods) -> None:
    source = {"http": {"url": f"http://127.0.0.1:{free_port()}/a.tar", "checksum": sha256(b"")}}
    failure = pod(source=source).failed(*BUILD)
    assert failure.reason is Reason.SOURCE_UNREACHABLE
    assert "Check source.http.url" in failure.message


# oci


def artifact(services: Services, repository: str, reference: str, **more: Any) -> dict[str, Any]:
    return {"oci": {"image": f"{services.registry}/{repository}{reference}", **more}}


def test_an_artifact_is_built_by_its_digest(
    pod: Pods, services: Services, registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = registry.push(
        "sources/app", "v1", (CONTENT, tar({f"app/{name}": text for name, text in saying("artifact").items()}))
    )
    pod(source=artifact(services, "sources/app", f"@{digest}", subdirectory="app")).built()
    assert "artifact\n" in capfd.readouterr().out


def test_a_tag_is_resolved_once_and_what_it_meant_is_built(
    pod: Pods, services: Services, registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    first = registry.push("sources/tag", "v1", (CONTENT, tar(saying("first"))))
    source = artifact(services, "sources/tag", ":v1")
    outcome = pod(source=source).run("resolve")
    assert isinstance(outcome, Resolved), outcome
    assert (outcome.source.digest, outcome.source.ref) == (first, "v1")
    registry.push("sources/tag", "v1", (CONTENT, tar(saying("second"))))
    pod(source=source).built(source=outcome.source)
    assert "first\n" in capfd.readouterr().out


def test_an_artifact_of_another_tool_is_built_where_it_has_one_layer(
    pod: Pods, services: Services, registry: Registry
) -> None:
    digest = registry.push("sources/oras", "v1", ("application/vnd.oci.image.layer.v1.tar", tar(FILES, mode="w:")))
    assert pod(source=artifact(services, "sources/oras", f"@{digest}")).built().digest


@pytest.mark.parametrize(
    "layers",
    [
        ["application/vnd.oci.image.layer.v1.tar+zstd"],
        ["application/vnd.cncf.flux.content.v1.tar+zstd", "application/vnd.example.note"],
    ],
    ids=["of another tool", "beside something else"],
)
def test_an_artifact_may_be_compressed_with_zstandard(
    pod: Pods, services: Services, registry: Registry, layers: list[str]
) -> None:
    content = [tar(FILES, mode="w:zst"), b"note"]
    digest = registry.push("sources/zstd", "v1", *zip(layers, content, strict=False))
    assert pod(source=artifact(services, "sources/zstd", f"@{digest}")).built().digest


def test_a_private_artifact_is_pulled_with_the_credentials_of_the_output(
    pod: Pods, services: Services, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_text(services.ca)
    basic = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
    secure = Registry(services.secure, basic, str(tmp_path / "ca.crt"))
    digest = secure.push("sources/app", "v1", (CONTENT, tar(FILES)))
    output = {"image": f"{services.registry}/team/private-source", "secretRefs": [{"name": "registry"}]}
    secrets = {"docker/0": docker_config(services.secure, USER, PASSWORD)}
    source = {"oci": {"image": f"{services.secure}/sources/app:v1"}}
    app = pod(secrets, source=source, output=output)
    outcome = app.run("resolve")
    assert isinstance(outcome, Resolved), outcome
    assert outcome.source.digest == digest
    assert app.built(source=outcome.source).digest
    del output["secretRefs"]
    without = pod(source=source, output=output)
    failure = without.failed("resolve")
    assert (failure.reason, "output.secretRefs" in failure.message) == (Reason.SOURCE_DENIED, True)


def test_failures_of_artifacts_have_their_reasons(pod: Pods, services: Services, registry: Registry) -> None:
    digest = registry.push("sources/two", "v1", ("a/b", b"1"), ("a/b", b"2"))
    text = registry.push("sources/text", "v1", (CONTENT, b"no archive"))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    several = registry.put("sources/two", "index", index)
    for reference, reason, words in (
        (f"sources/two@{digest}", Reason.SOURCE_INVALID, "not an artifact of one layer"),
        (f"sources/two@{several}", Reason.SOURCE_INVALID, "is an index"),
        (f"sources/text@{text}", Reason.SOURCE_INVALID, "cannot be unpacked as tar"),
        (f"sources/none@sha256:{'0' * 64}", Reason.SOURCE_NOT_FOUND, "correct source.oci.image".capitalize()),
    ):
        failure = pod(source={"oci": {"image": f"{services.registry}/{reference}"}}).failed(*BUILD)
        assert (failure.reason, words in failure.message) == (reason, True), failure.message
    missing = pod(source=artifact(services, "sources/two", ":v9")).failed("resolve")
    assert missing.reason is Reason.SOURCE_NOT_FOUND
    silent = pod(source={"oci": {"image": f"127.0.0.1:{free_port()}/a:v1"}}).failed("resolve")
    assert silent.reason is Reason.REGISTRY_UNREACHABLE


# Flux


def test_the_artifact_of_flux_is_built_if_it_is_what_flux_says(
    pod: Pods, files: FileServer, capfd: pytest.CaptureFixture[str]
) -> None:
    files.files["app.tar.gz"] = content = tar(saying("flux"), time=0)
    spec = {"flux": {"kind": "GitRepository", "name": "app"}}
    source = Source(url=files.url("app.tar.gz"), digest=sha256(content), revision="main@sha1:1")
    pod(source=spec).built(source=source)
    assert "flux\n" in capfd.readouterr().out
    files.files["app.tar.gz"] = tar({**FILES, "evil": ""})
    failure = pod(source=spec).failed(*BUILD, source=source)
    assert failure.reason is Reason.SOURCE_CHECKSUM_MISMATCH
    gone = pod(source=spec).failed(*BUILD, source=source.model_copy(update={"url": files.url("old.tar.gz")}))
    assert (gone.reason, "If Flux has a newer revision" in gone.message) == (Reason.SOURCE_NOT_FOUND, True)
    odd = pod(source=spec).failed(*BUILD, source=source.model_copy(update={"digest": f"blake3:{'0' * 64}"}))
    assert (odd.reason, "--artifact-digest-algo" in odd.message) == (Reason.SOURCE_INVALID, True)


# git over ssh, LFS, SHA-256


def ssh_source(sshd: SshServer, services: Services, name: str) -> dict[str, Any]:
    return {"git": {"url": sshd.url(services.git.root / name), "ref": "main", "secretRef": {"name": "deploy-key"}}}


@pytest.mark.parametrize("key", ["ssh-privatekey", "identity"])
def test_a_repository_over_ssh_with_submodules(
    pod: Pods, services: Services, sshd: SshServer, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    app, sub = f"ssh-app-{key}", f"ssh-sub-{key}"
    services.git.commit(sub, {"hello.txt": f"from the submodule by {key}\n"})
    commit = services.git.commit(app, {"Dockerfile": "FROM busybox:1.36\nCOPY . /src\nRUN cat /src/sub/hello.txt\n"})
    work = services.git.root / f".work-{app}"
    services.git._git(work, "remote", "add", "origin", str(services.git.root / app))
    services.git._git(work, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"../{sub}", "sub")
    services.git._git(work, "commit", "--quiet", "--message=submodule")
    services.git._git(work, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    # Windows line ends, and no last one: what people paste into Secrets.
    secrets = {"git": {key: sshd.key.rstrip("\n").replace("\n", "\r\n"), "known_hosts": sshd.known_hosts}}
    source = ssh_source(sshd, services, app)
    outcome = pod(secrets, source=source).run("resolve")
    assert isinstance(outcome, Resolved), outcome
    assert outcome.source.commit != commit
    pod(secrets, source=source).built(source=outcome.source)
    assert f"from the submodule by {key}\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"known_hosts": None}, Reason.SECRET_INVALID, "`ssh-keyscan 127.0.0.1` prints"),
        ({"ssh-privatekey": None}, Reason.SECRET_INVALID, "needs `ssh-privatekey` or `identity`"),
        ({"ssh-privatekey": "no key\n"}, Reason.SECRET_INVALID, "not a private key"),
        ({"known_hosts": "example.com ssh-ed25519 AAAA\n"}, Reason.GIT_HOST_KEY_REJECTED, "`known_hosts`"),
    ],
)
def test_failures_of_ssh_have_their_reasons(
    pod: Pods, services: Services, sshd: SshServer, change: dict[str, str | None], reason: Reason, words: str
) -> None:
    services.git.commit("ssh-app2", FILES)
    secret: dict[str, str | None] = {"ssh-privatekey": sshd.key, "known_hosts": sshd.known_hosts, **change}
    kept = {key: text for key, text in secret.items() if text is not None}
    failure = pod({"git": kept}, source=ssh_source(sshd, services, "ssh-app2")).failed("resolve")
    assert (failure.reason, words in failure.message) == (reason, True), failure.message


def test_a_key_that_may_not_or_can_not_be_used(pod: Pods, services: Services, sshd: SshServer, tmp_path: Path) -> None:
    services.git.commit("ssh-app3", FILES)
    (tmp_path / "keys").mkdir()
    for key, reason, words in (
        (make_key(tmp_path / "keys" / "other"), Reason.GIT_AUTHENTICATION_FAILED, "not accepted: renew them"),
        (make_key(tmp_path / "keys" / "locked", "passphrase"), Reason.SECRET_INVALID, "has a passphrase"),
    ):
        secrets = {"git": {"ssh-privatekey": key, "known_hosts": sshd.known_hosts}}
        app = pod(secrets, source=ssh_source(sshd, services, "ssh-app3"))
        failure = app.failed("resolve")
        assert (failure.reason, words in failure.message) == (reason, True), failure.message
    secrets = {"git": {"ssh-privatekey": sshd.key, "known_hosts": sshd.known_hosts}}
    app = pod(secrets, source=ssh_source(sshd, services, "none"))
    assert app.failed("resolve").reason is Reason.GIT_REPOSITORY_NOT_FOUND


LFS_ATTRIBUTES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
LFS_DOCKERFILE = "FROM busybox:1.36\nCOPY . /src\nRUN cat /src/large.bin\n"


def pointer(content: bytes) -> str:
    """Return what git has in place of a file that is kept in LFS."""
    return f"version https://git-lfs.github.com/spec/v1\noid {sha256(content)}\nsize {len(content)}\n"


@pytest.mark.parametrize(("access", "key"), [("", ""), ("private/", "password"), ("private/", "bearerToken")])
def test_files_in_lfs_are_fetched_with_the_credentials_of_the_repository(
    pod: Pods, services: Services, access: str, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = f"large and in LFS {key}\n".encode()
    services.git.lfs[sha256(content).removeprefix("sha256:")] = content
    files = {".gitattributes": LFS_ATTRIBUTES, "Dockerfile": LFS_DOCKERFILE, "large.bin": pointer(content)}
    commit = services.git.commit("lfs", files)
    source = {"git": {"url": services.git.url(f"{access}lfs"), "ref": commit}}
    secrets = {}
    if access:
        source["git"] |= {"secretRef": {"name": "git"}}  # type: ignore[dict-item]
        password = {"username": services.git.user, "password": services.git.password}
        secrets = {"git": password if key == "password" else {key: services.git.token}}
    pod(secrets, source=source).built(source=Source(commit=commit))
    assert content.decode() in capfd.readouterr().out


def test_a_file_that_lfs_does_not_have_is_never_built_as_its_pointer(pod: Pods, services: Services) -> None:
    files = {".gitattributes": LFS_ATTRIBUTES, "Dockerfile": LFS_DOCKERFILE, "large.bin": pointer(b"lost")}
    commit = services.git.commit("lfs-lost", files)
    failure = pod(source={"git": {"url": services.git.url("lfs-lost")}}).failed(*BUILD, source=Source(commit=commit))
    assert failure.reason is Reason.GIT_LFS_FAILED, failure.message
    assert f"'large.bin', a file in git LFS of {services.git.url('lfs-lost')}, cannot be fetched" in failure.message


@pytest.fixture
def elsewhere(services: Services) -> Iterator[GitServer]:
    """Another git server, which has the same repositories."""
    server = GitServer(services.git.root)
    with ThreadingHTTPServer(("127.0.0.1", 0), server.handler()) as listening:
        server.port = listening.server_port
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        listening.shutdown()


def test_a_bearer_token_is_shown_to_its_own_host_only(
    pod: Pods, services: Services, elsewhere: GitServer, capfd: pytest.CaptureFixture[str]
) -> None:
    git, secrets = services.git, {"git": {"bearerToken": f"{services.git.token}\n"}}
    git.shown.clear()
    lib = git.commit("bearer-lib", {"hello.txt": "of the submodule\n"})
    module = f'[submodule "lib"]\n\tpath = lib\n\turl = {elsewhere.url("bearer-lib")}\n'
    git.commit("bearer", {"Dockerfile": SHOW.replace("hello.txt", "lib/hello.txt"), ".gitmodules": module})
    work = git.root / ".work-bearer"
    git._git(work, "update-index", "--add", "--cacheinfo", f"160000,{lib},lib")
    git._git(work, "commit", "--quiet", "--message=module")
    git._git(work, "push", "--quiet", str(git.root / "bearer"), "HEAD:refs/heads/main")
    source = {"git": {"url": git.url("private/bearer"), "secretRef": {"name": "git"}}}
    resolved = pod(secrets, source=source).run("resolve")
    assert isinstance(resolved, Resolved), resolved
    pod(secrets, source=source).built(source=resolved.source)
    assert git.shown == {f"Bearer {git.token}"}
    assert elsewhere.shown == {""}, "the submodule"
    said = capfd.readouterr()
    assert "of the submodule\n" in said.out
    assert git.token not in said.out + said.err

    git.moved["gone"] = elsewhere.url("private/bearer")
    source = {"git": {"url": git.url("private/gone"), "secretRef": {"name": "git"}}}
    failure = pod(secrets, source=source).failed("resolve")
    assert (failure.reason, "redirects elsewhere" in failure.message) == (Reason.GIT_REPOSITORY_NOT_FOUND, True)
    assert elsewhere.shown == {""}


@pytest.mark.parametrize(
    ("secret", "reason", "words"),
    [
        ({"bearerToken": "wrong"}, Reason.GIT_AUTHENTICATION_FAILED, "'git' are not accepted"),
        ({"bearerToken": "a\nb"}, Reason.SECRET_INVALID, "`bearerToken` must be one line"),
        ({"bearer": "x"}, Reason.SECRET_INVALID, "or `bearerToken`, and has `bearer`"),
    ],
)
def test_a_bearer_token_that_does_not_serve(
    pod: Pods, services: Services, secret: dict[str, str], reason: Reason, words: str
) -> None:
    services.git.commit("bearer-not", FILES)
    source = {"git": {"url": services.git.url("private/bearer-not"), "secretRef": {"name": "git"}}}
    failure = pod({"git": secret}, source=source).failed("resolve")
    assert (failure.reason, words in failure.message) == (reason, True), failure.message


def test_a_submodule_over_ssh_of_a_repository_over_http_says_what_to_do(pod: Pods, services: Services) -> None:
    services.git.commit("mixed", FILES)
    work = services.git.root / ".work-mixed"
    services.git._git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    (work / ".gitmodules").write_text('[submodule "sub"]\n\tpath = sub\n\turl = ssh://git@127.0.0.1/sub\n')
    services.git._git(work, "add", ".gitmodules")
    services.git._git(work, "commit", "--quiet", "--message=submodule")
    services.git._git(work, "push", "--quiet", str(services.git.root / "mixed"), "HEAD:refs/heads/main")
    commit = services.git._git(work, "rev-parse", "HEAD").strip()
    failure = pod(source={"git": {"url": services.git.url("mixed")}}).failed(*BUILD, source=Source(commit=commit))
    assert failure.reason is Reason.GIT_AUTHENTICATION_FAILED
    assert "give it a relative URL in .gitmodules" in failure.message


def test_a_repository_of_sha256(pod: Pods, services: Services, tmp_path: Path) -> None:
    bare, work = services.git.root / "sha256", tmp_path / "work"
    for folder, kind in ((bare, ["--bare"]), (work, [])):
        services.git._git(
            tmp_path, "init", "--quiet", "--object-format=sha256", "--initial-branch=main", *kind, str(folder)
        )
    (work / "Dockerfile").write_text("FROM busybox:1.36\n")
    services.git._git(work, "add", "--all")
    services.git._git(work, "commit", "--quiet", "--message=test")
    services.git._git(work, "push", "--quiet", str(bare), "HEAD:refs/heads/main")
    source = {"git": {"url": services.git.url("sha256"), "ref": "main"}}
    app = pod(source=source)
    outcome = app.run("resolve")
    assert isinstance(outcome, Resolved), outcome
    assert len(outcome.source.commit or "") == 64
    assert app.built(source=outcome.source).digest


# limits


def test_an_archive_has_an_end(pod: Pods, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 1)
    failure = pod(source=http(files, tar(FILES))).failed(*BUILD)
    assert (failure.reason, "or 1 entries" in failure.message) == (Reason.SOURCE_INVALID, True)
