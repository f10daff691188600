"""The build context that a step makes of a source: what is in it, how it is dated, and what is missing."""

import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.steps import source
from multiarchbuild.steps.dates import EARLIEST, LATEST, within_formats
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.mounts import Mounts
from tests.unit.plan.world import spec

KINDS: dict[str, dict[str, Any]] = {
    "git": {"url": "https://git.test/app"},
    "http": {"url": "https://files.test/app.tar", "checksum": f"sha256:{'0' * 64}"},
    "oci": {"image": "registry.test/app:1"},
    "flux": {"kind": "GitRepository", "name": "app"},
    "inline": {"files": {"a": ""}},
}


def missing(folder: Path, kind: str, dockerfile: str = "Dockerfile", **more: str) -> str:
    """Return why a context cannot be built without its Dockerfile."""
    parsed = Spec.model_validate(spec(source={kind: {**KINDS[kind], **more}}))
    with pytest.raises(StepError) as raised:
        source._require_dockerfile(folder, dockerfile, parsed.source)
    assert raised.value.reason is Reason.DOCKERFILE_NOT_FOUND
    return raised.value.message


@pytest.mark.parametrize("kind", ["git", "http", "oci", "flux"])
def test_a_folder_around_everything_is_named_with_the_field(tmp_path: Path, kind: str) -> None:
    (tmp_path / "shop-1.4.2").mkdir()
    (tmp_path / "shop-1.4.2" / "Dockerfile").touch()
    assert missing(tmp_path, kind) == (
        "The source has no file 'Dockerfile': the only thing there is the folder 'shop-1.4.2'; set "
        f"source.{kind}.subdirectory to 'shop-1.4.2'."
    )
    assert missing(tmp_path, kind, subdirectory="out").endswith(f"set source.{kind}.subdirectory to 'out/shop-1.4.2'.")


def test_what_is_there_is_shown(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "main.go").touch()
    assert missing(tmp_path, "git", "build/Dockerfile") == (
        "The source has no file 'build/Dockerfile'; it has docker/, main.go: correct build.dockerfile or "
        "source.git.subdirectory."
    )
    for number in range(10):
        (tmp_path / f"z{number}").touch()
    assert "z5 and 4 more: correct" in missing(tmp_path, "http")


def test_an_inline_source_has_no_folder_to_name(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    message = missing(tmp_path, "inline")
    assert message.endswith(": correct build.dockerfile, or add it to source.inline.files.")
    assert "subdirectory" not in message


@pytest.mark.parametrize("name", ["Dockerfile", "./Dockerfile", "dockerfile", "to/Dockerfile", "a/Dockerfile", "l"])
def test_what_buildkit_may_find_is_left_to_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Dockerfile").touch()
    (tmp_path / "dockerfile").touch()
    (tmp_path / "to").symlink_to("/a")
    (tmp_path / "l").symlink_to("/a/Dockerfile")
    source._require_dockerfile(tmp_path, name, Spec.model_validate(spec(source={"oci": KINDS["oci"]})).source)


def test_inline_files_can_be_put_into_a_zip_in_every_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = Mounts(tmp_path)
    for folder in (paths.INPUTS, paths.WORK):
        mounts.at(folder).mkdir(parents=True)
    files = {"Dockerfile": "file.0", "src/app.py": "file.1"}
    parsed = Spec.model_validate(spec(source={"inline": {"files": dict.fromkeys(files, "")}}))
    inputs = Inputs(namespace="n", name="a", run="r", spec=parsed, files=files)
    (mounts.at(paths.INPUTS) / paths.INPUTS_FILE).write_text(inputs.model_dump_json(by_alias=True, exclude_none=True))
    for key in files.values():
        (mounts.at(paths.INPUTS) / key).write_text("FROM scratch\n")
    context = source.prepare(mounts, lambda: None)
    assert context.time == EARLIEST
    assert {path.stat().st_mtime for path in (context.folder, *context.folder.rglob("*"))} == {context.time}
    for zone in ("UTC", "Etc/GMT+12", "Pacific/Kiritimati"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        with zipfile.ZipFile(io.BytesIO(), "w") as written:
            written.write(context.folder / "src" / "app.py")
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        *((time, EARLIEST) for time in (0, -1, 315532800, float("nan"), float("-inf"))),
        *((time, LATEST) for time in (2**32, 2**63, float("inf"))),
        (1_700_000_000.9, 1_700_000_000),
    ],
)
def test_a_date_is_one_that_every_format_can_hold(tmp_path: Path, given: float, used: int) -> None:
    assert within_formats(given) == used
    (tmp_path / "a").touch()
    os.utime(tmp_path / "a", (used, used))
    for zone in (-12, 14):
        assert 1980 <= time.gmtime(used + zone * 3600).tm_year <= 2106
