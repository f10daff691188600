"""The virtual node: what it is given, without booting it."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cluster import cgroups, network
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import Layout, layout
from tests.cluster.spec import MachineSpec
from tests.cluster.vm import __main__ as vm
from tests.cluster.vm import guest
from tests.cluster.vm.image import Image

IMAGE = Image(Path("/cache/disk.raw"), Path("/cache/vmlinuz"), Path("/cache/initrd.img"))
SHARES = {"cache": Path("/cache"), "pki": Path("/pki")}


def test_the_guest_writes_to_its_own_folder_alone() -> None:
    words = guest.command(IMAGE, Path("/vm"), SHARES, "tap")
    folders = [words[index + 1] for index, word in enumerate(words) if word == "-virtfs"]
    writable = [folder for folder in folders if "readonly=on" not in folder]
    assert [folder.split(",")[1] for folder in writable] == ["path=/vm"]
    assert len(folders) == len(SHARES) + 1
    (disk,) = (word for word in words if word.startswith("file=/cache"))
    assert disk.endswith("snapshot=on")


def test_the_guest_finds_everything_where_it_is_on_this_machine() -> None:
    place = _layout()
    machine = MachineSpec("n-vm", "", "", 1500, {}, ("kubelet",), (), {}, ())
    script = guest.boot_script(place, machine, SHARES)
    assert "ro,cache=loose,msize=262144 pki /pki\n" in script
    assert f"mkdir -p {place.machines}/n-vm/kubelet\n" in script
    assert script.endswith(f"-m tests.cluster.vm.inside /state {place.instance}\n")


def test_its_link_goes_with_the_cluster_and_its_address_is_no_other_nodes() -> None:
    place = _layout()
    address = place.addresses.node(guest.GUEST.index)
    assert place.veth(address) == "two-v47"
    assert (guest.GUEST.name, str(address)) == ("n-vm", "10.9.0.47")


def _layout() -> Layout:
    return layout(instance="two", network="10.9.0.0/16")


def test_its_logs_stay_when_it_is_removed(tmp_path: Path) -> None:
    place = layout(instance="two", network="10.9.0.0/16", state=tmp_path)
    place.vm.mkdir()
    for name in ("spec.json", "boot", "services.json", "console.log", "kubelet.log"):
        (place.vm / name).touch()
    for _ in range(2):
        guest.stop(place, Kubectl(Path("/bin/true"), place.kubeconfig))
        assert {path.name for path in place.vm.iterdir()} == {"console.log", "kubelet.log"}


def test_no_qemu_stays_behind_a_start_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = layout(instance="two", network="10.9.0.0/16", state=tmp_path)
    started: list[subprocess.Popen[bytes]] = []
    nothing: Any = None  # `spec` alone reads what is built

    def popen(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        assert options["env"]["TMPDIR"] == str(place.vm), "what it writes to its disk"
        started.append(subprocess.Popen(words, **options))
        return started[0]

    monkeypatch.setattr(guest, "spec", lambda *_, **__: MachineSpec("n-vm", "", "", 1500, {}, (), (), {}, ()))
    monkeypatch.setattr(guest, "command", lambda *_: ("sleep", "1000"))
    monkeypatch.setattr(guest, "_connect", lambda *_: None)
    monkeypatch.setattr(network, "uplink", lambda: network.Uplink(1500, ""))
    monkeypatch.setattr(cgroups, "create", lambda *_: (tmp_path / "missing",))
    monkeypatch.setattr(guest, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))
    with pytest.raises(FileNotFoundError, match="missing"):
        guest.start(place, nothing, IMAGE, Path("/cache"), Kubectl(Path("/bin/true"), place.kubeconfig))
    (qemu,) = started
    assert qemu.returncode == -signal.SIGKILL


def test_it_is_refused_where_another_cluster_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vm", "check"])
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    assert vm.main() == 1
    assert f"KUBECONFIG={tmp_path} names another cluster" in capsys.readouterr().err
    monkeypatch.delenv("KUBECONFIG")
    assert vm.main() == 0
