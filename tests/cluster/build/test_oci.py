"""Images on disk: the same input gives the same bytes, and the registry's storage refers to all of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import tarfile
from pathlib import Path

import pytest

from tests.cluster.build import store
from tests.cluster.build.oci import Layer, LayerWriter, Settings, index_of, platform_image, write_archive
from tests.cluster.build.recipes import CAP_SETUID, file_capability


def _layer(path: Path, text: bytes = b"hello") -> Layer:
    with LayerWriter(path) as writer:
        writer.directory("tmp", mode=0o1777)
        writer.file("usr/bin/tool", text, mode=0o755)
        writer.symlink("bin", "usr/bin")
    assert writer.layer is not None
    return writer.layer


def test_a_layer_is_the_same_bytes_whenever_it_is_made(tmp_path: Path) -> None:
    first, second = _layer(tmp_path / "a"), _layer(tmp_path / "b")
    assert first.digest == second.digest
    assert first.digest != _layer(tmp_path / "c", b"other").digest


def test_a_layers_digests_are_those_of_the_file_and_of_the_tar_in_it(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "a")
    stored = layer.path.read_bytes()
    assert layer.size == len(stored)
    assert layer.digest == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(stored)).hexdigest()}"


def test_directories_above_an_entry_come_first_and_once(tmp_path: Path) -> None:
    with tarfile.open(_layer(tmp_path / "a").path) as archive:
        assert archive.getnames() == ["tmp", "usr", "usr/bin", "usr/bin/tool", "bin"]


def test_a_file_capability_takes_the_place_of_the_set_uid_bit(tmp_path: Path) -> None:
    capability = file_capability(CAP_SETUID)
    entry = tarfile.TarInfo("usr/bin/newuidmap")
    entry.mode = 0o4755
    with LayerWriter(tmp_path / "a") as writer:
        writer.copy(entry, io.BytesIO(), capability=capability)
    raw = gzip.decompress((tmp_path / "a").read_bytes())
    assert b"SCHILY.xattr.security.capability=" + capability in raw
    with tarfile.open(tmp_path / "a") as archive:
        assert not archive.getmember("usr/bin/newuidmap").mode & stat.S_ISUID


def test_a_failure_while_a_layer_is_written_describes_no_layer(tmp_path: Path) -> None:
    writer = LayerWriter(tmp_path / "a")

    def failing() -> None:
        with writer:
            writer.file("half", tmp_path / "missing")

    with pytest.raises(FileNotFoundError):
        failing()
    assert writer.layer is None


def test_an_index_lists_the_architectures_in_the_order_given(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "a")
    images = [platform_image(arch, Settings(), [layer]) for arch in ("arm64", "amd64")]
    index = json.loads(index_of(images).data)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["arm64", "amd64"]
    assert [entry["digest"] for entry in index["manifests"]] == [image.manifest.digest for image in images]


def test_everything_an_image_refers_to_is_in_the_storage(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "a")
    images = [platform_image(arch, Settings(cmd=("sh",)), [layer]) for arch in ("amd64", "arm64")]
    digest = store.add_image(tmp_path / "registry", "library/tool:1.0", images)
    root = tmp_path / "registry" / "docker" / "registry" / "v2"
    assert (root / "repositories/library/tool/_manifests/tags/1.0/current/link").read_text() == digest

    def blob(name: str) -> bytes:
        value = name.removeprefix("sha256:")
        content = (root / "blobs" / "sha256" / value[:2] / value / "data").read_bytes()
        assert hashlib.sha256(content).hexdigest() == value
        return content

    for entry in json.loads(blob(digest))["manifests"]:
        manifest = json.loads(blob(entry["digest"]))
        for descriptor in (manifest["config"], *manifest["layers"]):
            assert len(blob(descriptor["digest"])) == descriptor["size"]


def test_a_registry_that_writes_to_its_copy_does_not_touch_the_cache(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "a")
    digest = store.add_image(tmp_path / "cache", "library/tool:1", [platform_image("amd64", Settings(), [layer])])
    store.copy(tmp_path / "cache", tmp_path / "cluster")
    link = Path("docker/registry/v2/repositories/library/tool/_manifests/tags/1/current/link")
    (tmp_path / "cluster" / link).write_text("moved")
    assert (tmp_path / "cache" / link).read_text() == digest
    store.copy(tmp_path / "cache", tmp_path / "cluster")
    assert (tmp_path / "cluster" / link).read_text() == digest
    data = next(tmp_path.glob("cluster/**/data"))
    assert data.stat().st_nlink > 1


def test_an_archive_names_its_image(tmp_path: Path) -> None:
    images = [platform_image("amd64", Settings(), [_layer(tmp_path / "a")])]
    write_archive(tmp_path / "pause.tar", "registry.k8s.io/pause:3.10.1", images)
    with tarfile.open(tmp_path / "pause.tar") as archive:
        content = archive.extractfile("index.json")
        assert content is not None
        annotations = json.load(content)["manifests"][0]["annotations"]
    assert annotations["io.containerd.image.name"] == "registry.k8s.io/pause:3.10.1"
