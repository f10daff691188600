"""The seccomp profile of rootless builders: what it allows, how it is laid down, what a node is labelled."""

import hashlib
import json
from pathlib import Path

import pytest

from multiarchbuild.api.nodes import PROFILE_VERSION
from multiarchbuild.profile.lay import write
from multiarchbuild.profile.probe import failure
from multiarchbuild.profile.seccomp import ARCHITECTURES, NEEDED, profile, text

DANGEROUS = {
    *("bpf", "perf_event_open", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    *("reboot", "swapon", "swapoff", "acct", "quotactl", "settimeofday", "clock_settime", "iopl", "ioperm"),
    *("open_by_handle_at", "userfaultfd", "io_uring_setup", "io_uring_enter", "fanotify_init", "syslog", "add_key"),
    *("request_key", "nfsservctl", "lookup_dcookie", "kcmp", "pidfd_getfd", "process_madvise"),
}
"""What the default of runtimes does not allow, and a builder does not need."""


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
    known = hashlib.sha256("".join(map(text, sorted(ARCHITECTURES))).encode()).hexdigest()[:16]
    assert {known: PROFILE_VERSION} == {"ddaf30213fcaf2ef": "1"}, (
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
