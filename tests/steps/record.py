"""Records what BuildKit says of builds that fail, for the table tests in `tests/unit/steps/test_classify.py`.

    make record-fixtures [CASES="name name …"]

Each case is built by the arguments that the build step gives to buildctl, with the buildkitd of the local cluster's
programs (as root, beside no pod). What buildctl prints goes into `tests/unit/steps/buildctl/NAME.txt`, less what
moves and nobody reads. With a new version of BuildKit run it again and read the difference.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.index import MANIFEST, digest_of
from multiarchbuild.steps.buildctl import command
from multiarchbuild.steps.source import Context
from tests.cluster import cgroups
from tests.steps.servers import listens, registry_config, running, wait
from tests.support.ports import free_port

FOLDER = Path(__file__).parents[1] / "unit" / "steps" / "buildctl"
REGISTRY, ERRORS = "registry.test:5000", "errors.test:5001"
"""What the texts say in the place of this machine's ports."""
FOREIGN = "linux/s390x"
"""A platform that no machine of ours runs."""


@dataclass(frozen=True)
class Case:
    """A build that fails, or that is warned of."""

    dockerfile: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    platforms: Sequence[str] = ("linux/amd64",)
    spec: Mapping[str, Any] = field(default_factory=dict)
    image: str = f"{REGISTRY}/app"
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ssh_key: str = ""
    frontend: str = ""
    sbom: str = ""
    """Image that makes the SBOM."""
    docker_config: Mapping[str, Any] = field(default_factory=dict)
    kill: bool = False
    """Whether buildkitd is killed once a RUN says so."""
    memory: int = 0
    """Bytes that its RUNs may use, where that is limited."""
    disk: int = 0
    """Bytes that buildkitd's state may have, where that is limited."""


def run(command_: str, *, before: str = "") -> Case:
    """Return a build whose last instruction is `RUN command_`."""
    return Case(f"FROM busybox:1.36\n{before}RUN {command_}\n")


def base(image: str) -> Case:
    """Return a build of nothing but a base image."""
    return Case(f"FROM {image}\n")


PARALLEL = """\
FROM busybox:1.36 AS slow
RUN echo slow says much; for i in 1 2 3 4 5 6 7 8 9; do echo "slow $i"; done; sleep 30
FROM busybox:1.36 AS fails
RUN echo the real reason; sleep 1; exit 7
FROM busybox:1.36
COPY --from=slow /etc/passwd /slow
COPY --from=fails /etc/passwd /fails
"""
CROSS = """\
FROM busybox:1.36
ARG TARGETARCH
ARG TARGETVARIANT
COPY fail.sh /
RUN sh /fail.sh "$TARGETARCH$TARGETVARIANT"
"""
CROSS_SCRIPT = """\
echo "building for $1"
if [ "$1" = amd64v2 ]; then sleep 2; echo "the tests of $1 fail"; exit 9; fi
for i in 1 2 3 4 5 6 7 8 9; do echo "compiling $i"; done
sleep 30
"""
LONG_RUN = " && \\\n    ".join(f"echo step {number}" for number in range(60))

CASES: dict[str, Case] = {
    # Processes
    "run-1": run("echo x && exit 1"),
    "run-127": run("nosuchcommand"),
    "run-137": run("sleep 9 & kill -9 $!; wait $!"),
    "run-long": run(f"{LONG_RUN} && \\\n    echo the last words && exit 1"),
    "run-no-newline": run("printf 'no line break'; exit 1"),
    "run-quotes": run("""echo 'did not complete successfully: exit code: 137'; sh -c "exit 4" """),
    "run-says-disk-full": run("echo 'write /x: no space left on device' >&2; exit 1"),
    "run-says-exec-format": run("echo 'exec /bin/sh: exec format error' >&2; exit 1"),
    "run-says-401": run("echo 'unexpected status from HEAD request to http://r/v2/: 401 Unauthorized' >&2; exit 1"),
    "run-says-memory": run("echo 'fork: Cannot allocate memory' >&2; exit 1"),
    "run-says-error": run("echo 'error: failed to solve: the Dockerfile cannot be empty' >&2; exit 1"),
    "run-says-runtime": run(
        "echo 'runc run failed: unable to start container process: error mounting proc: permission denied'; exit 1",
        before="RUN true\n",
    ),
    "run-own-program": Case(
        'FROM busybox:1.36\nCOPY --chmod=755 tool /tool\nRUN ["/tool"]\n',
        {"tool": bytes.fromhex("7f454c46") + bytes(60)},
    ),
    "run-foreign": Case(
        'FROM scratch\nCOPY --chmod=755 tool /tool\nRUN ["/tool"]\n',
        {"tool": bytes.fromhex("7f454c46020201000000000000000000000200160000000100000000") + bytes(90)},
        platforms=[FOREIGN],
    ),
    "run-disk-full": Case(
        "FROM busybox:1.36\nRUN --mount=type=tmpfs,target=/small,size=65536 cat /dev/zero > /small/file\n"
    ),
    # On cgroup v2 BuildKit sees the kernel's kill, on v1 it sees the exit code alone.
    "run-oom": replace(
        run("echo eating; head -c 900000000 /dev/zero | tail -c 900000000 > /dev/null"), memory=64 << 20
    ),
    "run-high-id": run("chown 1000660000:0 /tmp; exit 1"),
    # Several at once
    "parallel": Case(PARALLEL),
    "cross": Case(CROSS, {"fail.sh": CROSS_SCRIPT}, platforms=["linux/amd64", "linux/amd64/v2"]),
    "cross-both": Case(
        "FROM busybox:1.36\nRUN echo $(uname -m); exit 5\n", platforms=["linux/amd64", "linux/amd64/v2"]
    ),
    # The Dockerfile
    "no-dockerfile": Case("", spec={"build": {"dockerfile": "other/My.Dockerfile"}}),
    "folder": Case(
        "FROM busybox:1.36\n", {"docker/Dockerfile": "FROM busybox:1.36\n"}, spec={"build": {"dockerfile": "docker"}}
    ),
    "empty": Case(""),
    "only-comment": Case("# nothing\n"),
    "no-from": Case("RUN echo\n"),
    "syntax-error": Case("FROM busybox:1.36\nRUNN echo\n"),
    "bad-copy": Case("FROM busybox:1.36\nCOPY a\n"),
    "blank-base": Case("ARG BASE\nFROM $BASE\n"),
    "bad-base": Case("FROM Not_A:Name:1\n"),
    "bad-platform": Case("FROM --platform=nonsense/really/x/y busybox:1.36\n"),
    "bad-flag": Case("FROM busybox:1.36\nRUN --nonsense=1 true\n"),
    "bad-check": Case("# check=nonsense=true\nFROM busybox:1.36\n"),
    "circular": Case("FROM busybox:1.36 AS a\nCOPY --from=b /x /x\nFROM busybox:1.36 AS b\nCOPY --from=a /x /x\n"),
    "binary": Case("\u0000\u0001\u0002"),
    "target": Case("FROM busybox:1.36 AS production\n", spec={"build": {"target": "prodction"}}),
    "check-error": Case("# check=error=true\nFROM busybox:1.36\nCMD echo hello\nMAINTAINER me\n"),
    "warnings": Case("FROM busybox:1.36\nCMD echo hello\nRUN exit 1\n"),
    "security-insecure": run("--security=insecure true"),
    "network-host": run("--network=host true"),
    # Secrets and files
    "secret-too-big": Case("FROM busybox:1.36\n", secrets={"bundle": bytes(600_000)}),
    "secret-missing": run("--mount=type=secret,id=npm,required=true cat /run/secrets/npm"),
    "ssh-missing": run("--mount=type=ssh,required=true true"),
    "ssh-bad": Case("FROM busybox:1.36\n", ssh_key="not a key"),
    "copy-missing": Case("FROM busybox:1.36\nCOPY nofile /\n"),
    "copy-ignored": Case("FROM busybox:1.36\nCOPY file /\n", {"file": "", ".dockerignore": "file\n"}),
    "copy-from-missing-file": Case("FROM busybox:1.36 AS one\nFROM busybox:1.36\nCOPY --from=one /none /none\n"),
    # Base images
    "base-missing": base(f"{REGISTRY}/library/none:1"),
    "base-tag-401": base(f"{REGISTRY}/library/none:401"),
    "base-typo": base("bsuybox:1.36"),
    "base-401": base(f"{ERRORS}/status-401/x"),
    "base-403": base(f"{ERRORS}/status-403/x"),
    "base-429": base(f"{ERRORS}/status-429/x"),
    "base-500": base(f"{ERRORS}/status-500/x"),
    "base-token-denied": base(f"{ERRORS}/token-401/x"),
    "base-refused": base("127.0.0.1:1/x"),
    "base-no-name": base("no.such.invalid/x"),
    "base-other-architecture": Case(
        f"FROM {ERRORS}/only-amd64/x\nCOPY file /\n", {"file": ""}, platforms=["linux/arm64"]
    ),
    "base-no-match": Case(f"FROM {ERRORS}/index-amd64/x\nRUN true\n", platforms=["linux/arm64"]),
    "base-not-an-image": base(f"{ERRORS}/broken/x"),
    "copy-from-image-missing": Case(f"FROM busybox:1.36\nCOPY --from={REGISTRY}/none / /x\n"),
    "context-missing": Case("FROM x\n", spec={"build": {"contexts": {"x": f"docker-image://{REGISTRY}/none"}}}),
    # ADD
    "add-503": Case(f"FROM busybox:1.36\nADD http://{ERRORS}/add/503 /\n"),
    "add-404": Case(f"FROM busybox:1.36\nADD http://{ERRORS}/add/404 /\n"),
    "add-refused": Case("FROM busybox:1.36\nADD http://127.0.0.1:1/x /\n"),
    "add-checksum": Case(f"FROM busybox:1.36\nADD --checksum=sha256:{'0' * 64} http://{ERRORS}/add/200 /\n"),
    "add-git-missing": Case(f"FROM busybox:1.36\nADD http://{ERRORS}/add/404.git /src\n"),
    # A full disk
    "disk-full-pull": replace(run("true"), disk=2 << 20),
    "disk-full-context": Case("FROM busybox:1.36\nCOPY big /\n", {"big": bytes(64 << 20)}, disk=48 << 20),
    "disk-full-copy": Case("FROM busybox:1.36\nCOPY big /\n", {"big": bytes(24 << 20)}, disk=40 << 20),
    "disk-full-run": replace(run("head -c 900000000 /dev/zero > /big"), disk=48 << 20),
    # Frontends and SBOMs
    "frontend-missing": Case(f"# syntax={REGISTRY}/docker/dockerfile:1\nFROM busybox:1.36\n"),
    "frontend-no-name": Case("# syntax=no.such.invalid/dockerfile:1\nFROM busybox:1.36\n"),
    "frontend-500": Case(f"# syntax={ERRORS}/status-500/dockerfile:1\nFROM busybox:1.36\n"),
    "sbom-missing": Case("FROM busybox:1.36\n", sbom=f"{REGISTRY}/scanner:1"),
    "sbom-no-name": Case("FROM busybox:1.36\n", sbom="no.such.invalid/scanner:1"),
    # Pushing
    "push-401": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-401/app"),
    "push-403": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-403/app"),
    "push-404": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-404/app"),
    "push-400": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-400/app"),
    "push-413": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-413/app"),
    "push-429": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-429/app"),
    "push-500": Case("FROM busybox:1.36\n", image=f"{ERRORS}/status-500/app"),
    "push-token-denied": Case("FROM busybox:1.36\n", image=f"{ERRORS}/token-401/app"),
    "push-refused": Case("FROM busybox:1.36\n", image="127.0.0.1:1/x"),
    "push-no-name": Case("FROM busybox:1.36\n", image="no.such.invalid/x"),
    # What carries it
    "daemon-killed": Case("FROM busybox:1.36\nRUN echo now; sleep 30\n", kill=True),
}


class _Errors(BaseHTTPRequestHandler):
    """A registry and a web server whose answers are in the path: status-401, token-401, only-amd64, add/503."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        kind, *rest = self.path.removeprefix("/v2").strip("/").partition("?")[0].split("/") or [""]
        if kind == "":
            self._answer(200, b"{}")
        elif kind == "token":
            self._answer(401, _said(401))
        elif kind == "add":
            self._answer(int(rest[0].removesuffix(".git")), b"nothing to see\n")
        elif kind == "token-401":
            challenge = f'Bearer realm="http://{self.headers["Host"]}/token",service="r"'
            self._answer(401, _said(401), {"WWW-Authenticate": challenge})
        elif kind.startswith("status-"):
            code = int(kind.removeprefix("status-"))
            self._answer(code, _said(code))
        else:
            self._image(kind, rest[-1])

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - the names that http.server looks for

    def _image(self, kind: str, reference: str) -> None:
        found = _images().get(kind, {})
        document = found.get(reference) or found.get("latest")
        if document is None:
            self._answer(404, _said(404))
            return
        parsed = json.loads(document) if document.startswith(b"{") else {}
        media = parsed.get("mediaType", "application/octet-stream")
        self._answer(200, document, {"Content-Type": media, "Docker-Content-Digest": digest_of(document)})

    def _answer(self, code: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _said(code: int) -> bytes:
    codes = {400: "TAG_INVALID", 401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 429: "TOOMANYREQUESTS"}
    said = codes.get(code, "UNKNOWN")
    return json.dumps({"errors": [{"code": said, "message": f"the registry says {said.lower()}"}]}).encode()


def _images() -> dict[str, dict[str, bytes]]:
    """Return the blobs of small images by kind and digest, their entry under `latest`."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [EMPTY_DIFF]}, "config": {}}
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _described(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_described(EMPTY_TAR, "application/vnd.oci.image.layer.v1.tar")],
        }
    ).encode()
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{**_described(manifest, MANIFEST), "platform": {"os": "linux", "architecture": "amd64"}}],
        }
    ).encode()
    blobs = {digest_of(blob): blob for blob in (config, manifest, index, EMPTY_TAR)}
    broken = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": []}).encode()
    return {
        "only-amd64": {**blobs, "latest": manifest},
        "index-amd64": {**blobs, "latest": index},
        "broken": {digest_of(broken): broken, "latest": broken},
    }


EMPTY_TAR = bytes(1024)
EMPTY_DIFF = digest_of(EMPTY_TAR)


def _described(blob: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


@dataclass
class _Machine:
    """What runs while it is recorded."""

    folder: Path
    buildkitd: str
    buildctl: str
    registry: str
    errors: str

    @property
    def config(self) -> str:
        """What buildkitd is told."""
        hosts = "".join(f'[registry."{host}"]\nhttp = true\n' for host in (self.registry, self.errors))
        return f'{hosts}[registry."docker.io"]\nmirrors = ["{self.registry}"]\n'

    @contextmanager
    def daemon(self, case: Case) -> Iterator[subprocess.Popen[bytes]]:
        """Run a buildkitd that has nothing yet, with as much memory and disk as the case allows."""
        socket = self.folder / "buildkitd.sock"
        with tempfile.TemporaryDirectory(dir=self.folder) as root, ExitStack() as stack:
            if case.disk:
                options = f"size={case.disk}"
                subprocess.run(["mount", "-t", "tmpfs", "-o", options, "buildkitd", root], check=True)
                stack.callback(subprocess.run, ["umount", "--lazy", root], check=True)
            config = self.config
            if case.memory:
                config += f'[worker.oci]\ndefaultCgroupParent = "{stack.enter_context(_limited(case.memory))}"\n'
            (self.folder / "buildkitd.toml").write_text(config)
            stack.callback(_unmount, root)
            process = stack.enter_context(
                running(
                    *(self.buildkitd, "--config", str(self.folder / "buildkitd.toml"), "--root", root),
                    *("--addr", f"unix://{socket}", "--oci-worker-snapshotter=overlayfs", "--containerd-worker=false"),
                    log=self.folder / "buildkitd.log",
                )
            )
            wait(socket.exists)
            yield process
        socket.unlink(missing_ok=True)

    def record(self, case: Case, daemon: subprocess.Popen[bytes]) -> str:
        """Return what buildctl prints for a case."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            arguments = self._arguments(case, Path(work))
            config = Path(work) / "config.json"
            config.write_text(json.dumps(case.docker_config))
            env = {**os.environ, "DOCKER_CONFIG": work}
            lines: list[str] = []
            with subprocess.Popen(
                arguments, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
            ) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    lines.append(line)
                    if case.kill and '"logs"' in line:
                        daemon.kill()
            return "".join(filter(None, map(_kept, lines))).replace(work, "/work")

    def _arguments(self, case: Case, work: Path) -> list[str]:
        (work / "context").mkdir()
        for path, content in {"Dockerfile": case.dockerfile, **case.files}.items():
            target = work / "context" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._own(content).encode() if isinstance(content, str) else content)
        secrets = []
        for name, value in case.secrets.items():
            (work / name).write_bytes(value)
            secrets.append((name, work / name))
        key = work / "key" if case.ssh_key else None
        if key:
            key.write_text(case.ssh_key)
        spec: dict[str, Any] = {
            "platforms": list(case.platforms),
            "source": {"inline": {"files": {"Dockerfile": ""}}},
            "output": {"image": case.image},
            "attestations": {"sbom": bool(case.sbom)},
            **case.spec,
        }
        arguments = command(
            Spec.model_validate_json(self._own(json.dumps(spec))),
            Context(work / "context", 315532800, None),
            case.platforms,
            address=f"unix://{self.folder / 'buildkitd.sock'}",
            metadata_file=work / "metadata.json",
            cache_to=None,
            cache_from=(),
            secrets=secrets,
            ssh_key=key,
            frontend=self._own(case.frontend),
            sbom_generator=self._own(case.sbom),
        )
        return [self.buildctl, *arguments[1:]]

    def _own(self, text: str) -> str:
        return text.replace(REGISTRY, self.registry).replace(ERRORS, self.errors)

    def named(self, text: str) -> str:
        """Return what was printed with the names of this file in the place of this machine's ports and folders."""
        text = re.sub(rf"{re.escape(str(self.folder))}/tmp\w+", "/var/lib/buildkit", text)
        text = re.sub(r"/tmp/containerd-mount\d+", "/tmp/containerd-mount1", text)
        return text.replace(self.registry, REGISTRY).replace(self.errors, ERRORS)


@contextmanager
def _limited(memory: int) -> Iterator[str]:
    """Yield the path of a cgroup whose processes have so many bytes of memory together."""
    name = f"mab-record-{os.getpid()}"
    cgroups.create(name, "runs")
    try:
        limits = ("memory.max", "memory.limit_in_bytes")
        paths = [tree / name / limit for tree in cgroups.hierarchies() for limit in limits]
        (limit,) = [path for path in paths if path.exists()]
        limit.write_text(str(memory))
        yield f"/{name}/runs"
    finally:
        cgroups.remove(name)


def _unmount(folder: str) -> None:
    """Take away the mounts that a buildkitd leaves which was killed."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", point], check=True)


def _kept(line: str) -> str:
    """Return a line without what only moves, and without the Dockerfile that each warning repeats."""
    if not line.startswith("{"):
        return line
    status = json.loads(line)
    status.pop("statuses", None)
    for warning in status.get("warnings", ()):
        warning.pop("sourceInfo", None)
    return f"{json.dumps(status, separators=(',', ':'))}\n" if status else ""


@contextmanager
def machine(programs: Mapping[str, Path], images: Path) -> Iterator[_Machine]:
    """Run a registry that serves `images`, and one that fails."""
    with tempfile.TemporaryDirectory(prefix="record-") as name, ExitStack() as stack:
        folder = Path(name)
        port = free_port()
        (folder / "registry.json").write_text(registry_config(port, images))
        stack.enter_context(
            running(str(programs["registry"]), "serve", str(folder / "registry.json"), log=folder / "registry.log")
        )
        wait(lambda: listens(port))
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Errors)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        yield _Machine(
            folder,
            str(programs["buildkitd"]),
            str(programs["buildctl"]),
            f"127.0.0.1:{port}",
            f"127.0.0.1:{server.server_port}",
        )


def main(names: Sequence[str]) -> int:
    """Record the cases `names`, or all."""
    from tests.cluster import build  # noqa: PLC0415 - it compiles what is missing
    from tests.cluster.layout import cache_directory  # noqa: PLC0415

    built = build.ensure(cache_directory(os.environ))
    wanted = list(names) or list(CASES)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as images, machine(built.programs, Path(images)) as recorder:
        built.images.copy_to(Path(images))
        for name in wanted:
            # A daemon for each: what one case has pulled, another would find cached.
            with recorder.daemon(CASES[name]) as daemon:
                text = recorder.named(recorder.record(CASES[name], daemon))
            (FOLDER / f"{name}.txt").write_text(text)
            last = next((line for line in reversed(text.splitlines()) if line.startswith("error: ")), "no error")
            print(f"{name}: {last}", flush=True)
    if not names:
        for stale in FOLDER.glob("*.txt"):
            if stale.stem not in CASES:
                stale.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
