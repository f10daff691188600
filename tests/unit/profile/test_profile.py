"""The profiles of rootless builders: what they allow, how nodes get them, what a node is labelled."""

import hashlib
import json
import threading
from pathlib import Path

import pytest

from multiarchbuild.api.nodes import (
    APP_ARMOR_LABEL,
    APP_ARMOR_PROFILE,
    APP_ARMOR_PROFILE_LABEL,
    PROFILE_LABEL,
    PROFILE_VERSION,
)
from multiarchbuild.nodes.kubernetes import Api
from multiarchbuild.nodes.labeller import Labeller
from multiarchbuild.profile import apparmor, label
from multiarchbuild.profile.lay import write
from multiarchbuild.profile.load import is_loaded
from multiarchbuild.profile.probe import failure
from multiarchbuild.profile.seccomp import ARCHITECTURES, NEEDED, profile, text
from tests.support.node_server import NodeServer

DANGEROUS = {
    *("bpf", "perf_event_open", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    *("reboot", "swapon", "swapoff", "acct", "quotactl", "settimeofday", "clock_settime", "iopl", "ioperm"),
    *("open_by_handle_at", "userfaultfd", "io_uring_setup", "io_uring_enter", "fanotify_init", "syslog", "add_key"),
    *("request_key", "nfsservctl", "lookup_dcookie", "kcmp", "pidfd_getfd", "process_madvise"),
}
"""What the default of runtimes does not allow, and a builder does not need."""
DEFAULT = "cri-containerd.apparmor.d (enforce)"
"""What a container has that names no profile, where the runtime uses AppArmor."""
RUNC = "runc (unconfined)"
"""What it has where the runtime does not, and the node has the profiles of Debian 13."""


def test_it_allows_what_builders_need_and_no_more() -> None:
    rules = profile("x86_64")["syscalls"]
    allowed = {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    default = json.loads(Path("operator/multiarchbuild/profile/default.json").read_text(encoding="ascii"))
    usual = {*default["names"], *(rule["name"] for rule in default["conditional"])}
    assert not usual & set(NEEDED), "those are of the default already"
    assert allowed == usual | set(NEEDED)
    assert not allowed & DANGEROUS
    assert profile("x86_64")["defaultAction"] == "SCMP_ACT_ERRNO"


def test_another_profile_is_another_version() -> None:
    profiles = "".join((*map(text, sorted(ARCHITECTURES)), apparmor.text()))
    known = hashlib.sha256(profiles.encode()).hexdigest()[:16]
    assert {known: PROFILE_VERSION} == {"cf6e70fe9d21c5a8": "1"}, (
        "raise PROFILE_VERSION, and the chart's profileVersion"
    )


def test_it_is_of_the_architecture_of_the_node() -> None:
    assert profile("aarch64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert profile("unheard-of")["architectures"] == [], "its native one, for a runtime"


def test_it_is_written_when_it_is_missing_or_another(tmp_path: Path) -> None:
    path = tmp_path / "multiarchbuild" / "rootless.json"
    assert write(path, "one")
    assert not write(path, "one")
    path.write_bytes(b"\xff")
    assert write(path, "one")
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_the_proof_is_given_or_says_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "operator")
    assert failure() == ""


def test_a_builder_gets_what_containers_do_not_and_nothing_over_the_kernel() -> None:
    rules = {line.strip() for line in apparmor.text().splitlines()}
    assert {"userns,", "mount,", "umount,", "pivot_root,"} <= rules
    assert {"deny capability mac_admin,", "deny capability mac_override,", "deny capability sys_module,"} <= rules
    assert not any(rule.startswith(("change_profile", "dbus", "unix", "all,")) for rule in rules)
    assert "@" not in apparmor.text()


@pytest.mark.parametrize(
    ("profiles", "loaded"),
    [
        (f"docker-default (enforce)\n{APP_ARMOR_PROFILE} (enforce)\n", True),
        (f"{APP_ARMOR_PROFILE} (complain)\n", False),
        (f"{APP_ARMOR_PROFILE}-other (enforce)\n", False),
        ("", False),
    ],
)
def test_a_profile_that_the_kernel_does_not_enforce_is_loaded_again(profiles: str, *, loaded: bool) -> None:
    assert is_loaded(profiles) is loaded


@pytest.mark.parametrize(
    ("current", "said"),
    [
        (f"{APP_ARMOR_PROFILE} (enforce)\n", ""),
        (f"{APP_ARMOR_PROFILE} (complain)\n", "(complain), and not with"),
        (f"{DEFAULT}\n", f"with {DEFAULT}"),
        ("unconfined\n", "with unconfined"),
        (None, "with no AppArmor profile"),
    ],
)
def test_a_runtime_that_uses_another_profile_is_noticed(tmp_path: Path, current: str | None, said: str) -> None:
    path = tmp_path / "current"
    if current is not None:
        path.write_text(current, encoding="utf-8")
    why = apparmor.not_confined((tmp_path / "missing", path))
    assert (why == "") is (said == "")
    assert said in why


@pytest.mark.parametrize(
    ("enabled", "current", "said"),
    [
        (False, "", "this node has no AppArmor"),
        (True, RUNC, "has AppArmor, but the container runtime does not use it"),
        (True, DEFAULT, ""),
    ],
)
def test_a_node_says_once_why_its_builders_have_no_app_armor_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], current: str, said: str, *, enabled: bool
) -> None:
    monkeypatch.setattr(apparmor, "is_enabled", lambda: enabled)
    monkeypatch.setattr(apparmor, "current", lambda: current)
    monkeypatch.setattr(label, "keep_labelled", lambda *_: 0)
    for name in ("HOST", "PORT"):
        monkeypatch.setenv(f"KUBERNETES_SERVICE_{name}", "none")
    stop = threading.Event()
    assert label.label(Labeller("node-1", "a", 1, Path("started")), stop, Api(Path()), apparmor.Use.ELSEWHERE) == 0
    out = capsys.readouterr().out
    assert (said in out, bool(said)) == (True, bool(out))


@pytest.mark.parametrize(("content", "enabled"), [("Y\n", True), ("N\n", False), (None, False)])
def test_a_kernel_with_app_armor_is_known_by_its_module(tmp_path: Path, content: str | None, *, enabled: bool) -> None:
    path = tmp_path / "enabled"
    if content is not None:
        path.write_text(content, encoding="ascii")
    assert apparmor.is_enabled(path) is enabled


@pytest.mark.parametrize(
    ("refused", "enabled", "current", "labels", "hint"),
    [
        ("", False, "", {PROFILE_LABEL: PROFILE_VERSION, APP_ARMOR_LABEL: None}, False),
        ("", True, DEFAULT, {PROFILE_LABEL: PROFILE_VERSION, APP_ARMOR_LABEL: "true"}, False),
        ("", True, "unconfined", {PROFILE_LABEL: PROFILE_VERSION, APP_ARMOR_LABEL: None}, False),
        ("", True, RUNC, {PROFILE_LABEL: PROFILE_VERSION, APP_ARMOR_LABEL: None}, False),
        ("no mounts", True, DEFAULT, {PROFILE_LABEL: None, APP_ARMOR_LABEL: "true"}, True),
        ("no mounts", True, "unconfined", {PROFILE_LABEL: None, APP_ARMOR_LABEL: None}, False),
        ("no mounts", False, "", {PROFILE_LABEL: None, APP_ARMOR_LABEL: None}, False),
    ],
)
def test_labels_of_a_node_by_what_was_tried(
    monkeypatch: pytest.MonkeyPatch,
    refused: str,
    current: str,
    labels: dict[str, str | None],
    *,
    enabled: bool,
    hint: bool,
) -> None:
    monkeypatch.setattr(label, "failure", lambda: refused)
    monkeypatch.setattr(apparmor, "is_enabled", lambda: enabled)
    monkeypatch.setattr(apparmor, "current", lambda: current)
    found, wrong = label.with_seccomp()
    assert found == labels
    assert ("profile.appArmor" in wrong, wrong.startswith(refused)) == (hint, True)


@pytest.mark.parametrize(("confined", "refused"), [("", ""), ("another profile", ""), ("", "no mounts")])
def test_both_profiles_are_proved_together(monkeypatch: pytest.MonkeyPatch, confined: str, refused: str) -> None:
    monkeypatch.setattr(label, "failure", lambda: refused)
    monkeypatch.setattr(apparmor, "not_confined", lambda: confined)
    wrong = confined or refused
    assert label.with_both() == ({APP_ARMOR_PROFILE_LABEL: None if wrong else PROFILE_VERSION}, wrong)


@pytest.mark.parametrize(
    ("use", "labels"),
    [
        (apparmor.Use.NOWHERE, {PROFILE_LABEL: PROFILE_VERSION, APP_ARMOR_LABEL: "true"}),
        (
            apparmor.Use.ELSEWHERE,
            {PROFILE_LABEL: PROFILE_VERSION, APP_ARMOR_LABEL: "true", APP_ARMOR_PROFILE_LABEL: "stale"},
        ),
        (apparmor.Use.HERE, {APP_ARMOR_PROFILE_LABEL: PROFILE_VERSION}),
    ],
)
def test_the_label_of_an_app_armor_profile_that_nothing_loads_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: apparmor.Use, labels: dict[str, str]
) -> None:
    for name in ("failure", "apparmor.not_confined"):
        monkeypatch.setattr(f"multiarchbuild.profile.label.{name}", lambda: "")
    monkeypatch.setattr(apparmor, "is_enabled", lambda: True)
    monkeypatch.setattr(apparmor, "current", lambda: DEFAULT)
    server, stop = NodeServer(tmp_path), threading.Event()
    server.node["labels"] = {APP_ARMOR_PROFILE_LABEL: "stale"}
    with server.serving(monkeypatch):
        arguments = (Labeller("node-1", "a", 0.01, tmp_path / "started"), stop, Api(tmp_path), use)
        thread = threading.Thread(target=label.label, args=arguments, daemon=True)
        thread.start()
        server.until("labelled", lambda: len(server.states) > 1)
        assert server.node["labels"] == labels
        stop.set()
        thread.join()
    left = {APP_ARMOR_PROFILE_LABEL: "stale"} if use is apparmor.Use.ELSEWHERE else {}
    assert server.node == {"labels": left, "annotations": {}}
