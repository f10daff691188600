"""The virtual node: what it is given, without booting it."""

from pathlib import Path

from tests.cluster.layout import Layout, layout
from tests.cluster.spec import MachineSpec
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
