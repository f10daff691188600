"""The parts that need no cluster: keys, processes, locks, files."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509

from tests.cluster import files, locks, pki
from tests.cluster.errors import ClusterError
from tests.cluster.fixture import external
from tests.cluster.processes import Process, run
from tests.cluster.spec import MachineSpec, Mount, Service


def test_certificates_are_issued_once_and_by_their_authority(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path, "ca")
    first = authority.issue("a", common_name="a", organization="o", hosts=("a.test", "10.0.0.1"))
    before = first.cert.read_bytes()
    again = pki.Authority(tmp_path, "ca").issue("a", common_name="a")
    assert again == first
    assert again.cert.read_bytes() == before
    cert = x509.load_pem_x509_certificate(before)
    cert.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pair.cert.read_bytes()))
    # Python 3.13 refuses a certificate that does not name its authority's key.
    assert cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert first.key.stat().st_mode & 0o077 == 0


def test_htpasswd_line_verifies() -> None:
    line = pki.htpasswd_line("ci", "secret")
    user, _, hashed = line.strip().partition(":")
    assert user == "ci"
    assert len(hashed) == 60
    # bcrypt keeps its parameters and salt in the hash: hashing again with them gives the same.
    assert pki.crypt("secret", hashed) == hashed
    assert pki.crypt("other", hashed) != hashed


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    files.write_atomic(path, b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fchmod", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_process_is_known_by_more_than_its_number() -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        process = Process.of(child.pid)
        assert process is not None
        assert process.alive
        impostor = Process(process.pid, process.start + 1, process.boot)
        impostor.kill()
        assert process.alive
        threading.Thread(target=child.wait).start()
        process.kill()
        assert not process.alive
    process.kill()


def test_errors_of_commands_say_what_failed() -> None:
    with pytest.raises(ClusterError, match="`false` failed with 1"):
        run(["false"])
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        run(["no-such-program"])
    with pytest.raises(ClusterError, match="did not end within"):
        run(["sleep", "10"], timeout=0.05)


def test_lock_whose_file_the_holder_removed_still_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waiter = f"""
from pathlib import Path
from tests.cluster.locks import locked
with locked(Path({str(path)!r}), waiting="waiting"):
    print("held", Path({str(path)!r}).exists(), flush=True)
"""
    with locks.locked(path, waiting=""):
        child = subprocess.Popen([sys.executable, "-c", waiter], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        path.unlink()
    assert child.stdout.readline() == "held True\n"
    assert child.wait() == 0


def test_machine_spec_survives_its_file() -> None:
    spec = MachineSpec(
        name="m",
        address="10.0.0.2/24",
        gateway="10.0.0.1",
        mtu=1400,
        files={"a": "b"},
        directories=("d",),
        mounts=(Mount("/a", "/b"),),
        sysctls={"net/ipv4/ip_forward": "1"},
        services=(Service("s", ("/bin/true",), needs=("/x",), env={"A": "b"}),),
    )
    assert MachineSpec.from_json(spec.to_json()) == spec


def test_foreign_cluster_needs_a_registry() -> None:
    with pytest.raises(ClusterError, match="MAB_TEST_REGISTRY is not"):
        external({"KUBECONFIG": "/x"})
