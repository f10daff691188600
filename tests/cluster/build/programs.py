"""The programs of the local cluster, compiled from the Go modules in ``tests/cluster/programs``.

Versions are pinned there, in go.mod and go.sum, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import gotoolchain
from tests.cluster.build.cache import content_key, publish, staging, writing
from tests.cluster.build.commands import Commands
from tests.cluster.build.errors import BuildError
from tests.cluster.build.progress import Progress

MODULES = Path(__file__).parent.parent / "programs"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_STATIC_TAGS = ("osusergo", "netgo", "static_build")
_BUILDKIT = "github.com/moby/buildkit"
_CONTAINERD = "github.com/containerd/containerd/v2"
_CONTAINERD_TAGS = ("no_btrfs", "no_devmapper", "no_zfs")


@dataclass(frozen=True)
class Program:
    """One command of one module, for one architecture.

    ``stamp`` lists variables that the linker sets; ``{version}`` in a value stands for the version of
    ``versioned_by``, a module that go.mod requires.
    """

    name: str
    module: str
    package: str
    goarch: str = "amd64"
    tags: tuple[str, ...] = ()
    stamp: tuple[tuple[str, str], ...] = ()
    versioned_by: str = ""
    optional: bool = False

    def arguments(self, go_mod: str) -> tuple[str, ...]:
        """Return the arguments of ``go build`` that decide what comes out, given the text of the module's go.mod."""
        version = module_version(go_mod, self.versioned_by) if self.versioned_by else ""
        linker = ["-s", "-w"]
        for variable, value in self.stamp:
            linker += ["-X", f"{variable}={value.format(version=version)}"]
        tags = ["-tags", ",".join(self.tags)] if self.tags else []
        return "-trimpath", *tags, "-ldflags", " ".join(linker)


def module_version(go_mod: str, module: str) -> str:
    """Return the version, such as ``v1.36.4``, that a go.mod requires of a module.

    Raises ValueError when it requires none.
    """
    for line in go_mod.splitlines():
        words = line.removeprefix("require").split()
        if words[:1] == [module] and len(words) > 1 and words[1].startswith("v"):
            return words[1]
    raise ValueError(f"go.mod does not require {module}")


def _kubernetes(name: str, command: str = "", *, goarch: str = "amd64") -> Program:
    values = {
        "gitVersion": "{version}",
        "gitMajor": "1",
        "gitMinor": "36",
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
    }
    return Program(
        name,
        "kubernetes",
        f"k8s.io/kubernetes/cmd/{command or name}",
        goarch=goarch,
        stamp=tuple((f"{package}.{key}", value) for package in _VERSION_PACKAGES for key, value in values.items()),
        versioned_by="k8s.io/kubernetes",
    )


def _buildkit(name: str, command: str, *, goarch: str = "amd64") -> Program:
    return Program(
        name,
        "buildkit",
        f"{_BUILDKIT}/cmd/{command}",
        goarch=goarch,
        tags=(*_STATIC_TAGS, "seccomp") if command == "buildkitd" else _STATIC_TAGS,
        stamp=((f"{_BUILDKIT}/version.Version", "{version}"),),
        versioned_by=_BUILDKIT,
    )


def _containerd(name: str) -> Program:
    return Program(name, "containerd", f"{_CONTAINERD}/cmd/{name}", tags=_CONTAINERD_TAGS)


_ROOTLESSKIT = "github.com/rootless-containers/rootlesskit/v3/cmd/rootlesskit"

# What the images are made of comes first: they are assembled while the rest compiles.
PROGRAMS: tuple[Program, ...] = (
    Program("pause", "pause", "localcluster/pause"),
    Program("pause-arm64", "pause", "localcluster/pause", goarch="arm64"),
    _buildkit("buildkitd", "buildkitd"),
    _buildkit("buildctl", "buildctl"),
    Program("rootlesskit", "rootlesskit", _ROOTLESSKIT),
    _buildkit("buildkitd-arm64", "buildkitd", goarch="arm64"),
    _buildkit("buildctl-arm64", "buildctl", goarch="arm64"),
    Program("rootlesskit-arm64", "rootlesskit", _ROOTLESSKIT, goarch="arm64"),
    Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kubectl"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubelet-arm64", "kubelet", goarch="arm64"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    Program("crane", "crane", "github.com/google/go-containerregistry/cmd/crane"),
    Program("registry", "registry", "github.com/distribution/distribution/v3/cmd/registry"),
    Program("coredns", "coredns", "github.com/coredns/coredns"),
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    Program(
        "buildx",
        "buildx",
        "github.com/docker/buildx/cmd/buildx",
        stamp=(("github.com/docker/buildx/version.Version", "{version}"),),
        versioned_by="github.com/docker/buildx",
        optional=True,
    ),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", optional=True),
    Program("actionlint", "actionlint", "github.com/rhysd/actionlint/cmd/actionlint", optional=True),
    Program("promcheck", "promcheck", "localcluster/promcheck", optional=True),
    # What verifies signatures: the libraries of cosign, containers/image, Flux and Kyverno.
    Program(
        "sigcheck",
        "sigcheck",
        "github.com/fluxcd/source-controller/sigcheck",
        tags=("containers_image_openpgp", "exclude_graphdriver_btrfs", "exclude_graphdriver_devicemapper"),
        optional=True,
    ),
    # Of the same module: who gives certificates to identities, and timestamps, for signatures without a key.
    Program("fulcio", "sigcheck", "github.com/sigstore/fulcio", optional=True),
    Program("timestamps", "sigcheck", "github.com/fluxcd/source-controller/sigcheck/timestamps", optional=True),
    # What makes volumes of folders of nodes, for the tests of builds that keep their cache on one.
    Program(
        "local-path-provisioner",
        "local-path-provisioner",
        "github.com/rancher/local-path-provisioner",
        optional=True,
    ),
    # A queue for the builders of the tests. Its module has the versions of Kubernetes: what both need is compiled once.
    Program("kueue", "kueue", "sigs.k8s.io/kueue/cmd/kueue", optional=True),
    # GitOps tools, for the tests that let them judge a build.
    Program("kstatus", "kstatus", "localcluster/kstatus", optional=True),
    # Of the module of sigcheck: in the same versions, most of what both need is compiled once.
    Program("kustomize-controller", "sigcheck", "github.com/fluxcd/kustomize-controller", optional=True),
    Program("argocd-lua", "argocd", "localcluster/argocd", optional=True),
)


class ProgramStore:
    """The cache's programs: which exist, where, and how a missing one is made.

    One Go toolchain is chosen when the store is opened, so that its version is part of every key.
    """

    def __init__(self, cache: Path, go: gotoolchain.Go) -> None:
        self._cache = cache
        self._go = go

    def path(self, program: Program) -> Path:
        """Return where the program is, or will be once it is built."""
        module = MODULES / program.module
        go_mod = (module / "go.mod").read_text()
        sources = [module / "go.mod", module / "go.sum", *sorted(module.glob("*.go")), *sorted(module.glob("*/**/*.*"))]
        key = content_key(
            [
                self._go.version,
                program.package,
                program.goarch,
                *program.arguments(go_mod),
                *(path.read_bytes() for path in sources if path.exists()),
            ]
        )
        return self._cache / "programs" / program.name / key / program.name

    def build(self, program: Program, commands: Commands) -> Path:
        """Compile the program unless it exists and return its path. Raises BuildError with the compiler's words."""
        final = self.path(program)
        if final.exists():
            return final
        module = MODULES / program.module
        with staging(self._cache) as directory:
            output = directory / program.name
            commands.run(
                program.name,
                [
                    self._go.command,
                    "build",
                    *program.arguments((module / "go.mod").read_text()),
                    "-o",
                    output,
                    program.package,
                ],
                cwd=module,
                env={
                    "CGO_ENABLED": "0",
                    "GOOS": "linux",
                    "GOARCH": program.goarch,
                    "GOTOOLCHAIN": "local",
                    "GOFLAGS": "-buildvcs=false",
                    "GOWORK": "off",
                },
            )
            publish(output, final)
        return final


def selected(names: Collection[str] | None = None, extra: Collection[str] = ()) -> tuple[Program, ...]:
    """Return the programs with these names (None: all that are not optional) and the extra ones.

    Raises BuildError for a name that is no program's.
    """
    unknown = ({*(names or ()), *extra}) - {program.name for program in PROGRAMS}
    if unknown:
        known = ", ".join(program.name for program in PROGRAMS)
        raise BuildError(f"No program is called {', '.join(sorted(unknown))}. There are: {known}.")
    return tuple(
        program
        for program in PROGRAMS
        if program.name in extra or (not program.optional if names is None else program.name in names)
    )


def open_store(cache: Path, commands: Commands) -> ProgramStore:
    """Return the store of a cache, with a Go toolchain found or installed. Raises BuildError when Go cannot be had."""
    go_mods = [(MODULES / module / "go.mod").read_text() for module in {program.module for program in PROGRAMS}]
    return ProgramStore(cache, gotoolchain.ensure(cache, gotoolchain.required_version(go_mods), commands))


def ensure_programs(
    cache: Path,
    names: Collection[str] | None = None,
    *,
    extra: Collection[str] = (),
    progress: Progress | None = None,
) -> Mapping[str, Path]:
    """Return the path of each program by name, compiling what the cache lacks.

    Args:
        cache: the cache directory.
        names: which programs; None for all but the optional ones.
        extra: optional programs wanted too.
        progress: where to show what happens; None for standard error.

    Raises:
        BuildError: for an unknown name, no Go, or a module that does not compile.
    """
    progress = progress or Progress()
    commands = Commands(cache / "logs")
    store = open_store(cache, commands)
    programs = selected(names, extra)
    missing = [program for program in programs if not store.path(program).exists()]
    if missing:
        with writing(cache, progress.note), progress.shown():
            progress.plan([program.name for program in missing])
            try:
                for program in missing:
                    with progress.task(program.name):
                        store.build(program, commands)
            finally:
                commands.stop()
    return {program.name: store.path(program) for program in programs}
