"""Folders as tarballs."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from multiarchbuild.cli.errors import UsageError
from multiarchbuild.cli.pack import Context, Packed, pack, source_date


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def packed(root: Path, dockerfile: str = "Dockerfile") -> tuple[Packed, bytes]:
    to = io.BytesIO()
    return pack(Context.open(root, dockerfile), to), to.getvalue()


def names(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.getnames()


def test_the_same_files_are_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for order, root in ((("a", "b"), one), (("b", "a"), two)):
        write(root, Dockerfile="FROM scratch\n")
        for name in order:
            write(root, **{f"src__{name}": name})
    for file in two.rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    assert packed(one) == packed(two)
    write(two, src__a="other")
    assert packed(one)[0].digest != packed(two)[0].digest


def test_it_says_what_it_wrote(tmp_path: Path) -> None:
    about, content = packed(write(tmp_path, Dockerfile="FROM scratch\n", src__a="a"))
    assert about.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert about.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}"
    assert (about.size, about.files) == (len(content), 3)
    assert names(content) == ["Dockerfile", "src", "src/a"]


def test_modes_and_links_stay_owners_and_times_go(tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM scratch\n", run="#!/bin/sh\n")
    (tmp_path / "run").chmod(0o750)
    (tmp_path / "link").symlink_to("../outside")
    (tmp_path / "empty").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe")
    _, content = packed(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert sorted(entries) == ["Dockerfile", "empty", "link", "run"]
    assert (entries["run"].mode, entries["empty"].mode) == (0o750, 0o700)
    assert entries["link"].linkname == "../outside"
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, 0, "", 0)}


def test_files_have_the_date_of_the_source_where_the_environment_names_one(tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM scratch\n", src__a="a")
    to = io.BytesIO()
    pack(Context.open(tmp_path, "Dockerfile"), to, time=source_date({"SOURCE_DATE_EPOCH": "1700000000"}))
    with tarfile.open(fileobj=io.BytesIO(to.getvalue())) as tar:
        assert {entry.mtime for entry in tar} == {1_700_000_000}
    assert [source_date(environment) for environment in ({}, {"SOURCE_DATE_EPOCH": ""})] == [0, 0]
    for wrong in ("yesterday", "-1", "1.5", "9" * 12):
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            source_date({"SOURCE_DATE_EPOCH": wrong})


def test_what_is_ignored_is_left_out_but_for_what_the_builder_reads(tmp_path: Path) -> None:
    write(
        tmp_path,
        Dockerfile="FROM scratch\n",
        **{".dockerignore": "*\n!src\nsrc/secret\n", "src__a": "", "src__secret": "", "other__b": ""},
    )
    _, content = packed(tmp_path)
    assert sorted(names(content)) == [".dockerignore", "Dockerfile", "src", "src/a"]


def test_a_repository_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    write(
        tmp_path, **{"Dockerfile": "", ".git__HEAD": "", "lib__.git": "gitdir: ../.git/modules/lib", ".gitignore": ""}
    )
    _, content = packed(tmp_path)
    assert names(content) == [".gitignore", "Dockerfile", "lib"]
    context = Context.open(tmp_path, "Dockerfile", keep_git_dir=True)
    assert [*context.entries()] == [".git", ".git/HEAD", ".gitignore", "Dockerfile", "lib", "lib/.git"]
    assert not context.leaves_git_out


def test_an_exception_below_an_ignored_folder_brings_its_folders_along(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{"Dockerfile": "", ".dockerignore": "a\n!a/b/keep\n", "a__b__keep": "", "a__b__drop": "", "a__c__drop": ""},
    )
    _, content = packed(tmp_path)
    assert names(content) == [".dockerignore", "Dockerfile", "a", "a/b", "a/b/keep"]


def test_the_ignore_file_of_the_dockerfile_goes_before_the_common_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{".dockerignore": "a\n", "ci__app.Dockerfile": "", "ci__app.Dockerfile.dockerignore": "b\nci\n"},
        a="",
        b="",
    )
    _, content = packed(tmp_path, "ci/app.Dockerfile")
    assert sorted(names(content)) == [
        ".dockerignore",
        "a",
        "ci/app.Dockerfile",
        "ci/app.Dockerfile.dockerignore",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no Dockerfile: name the Dockerfile with --file"),
        ({"Dockerfile": "", ".dockerignore": "a[\n"}, r"\.dockerignore: 'a\[' has a bracket"),
    ],
)
def test_a_folder_that_cannot_be_built_says_why(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Context.open(write(tmp_path, **files), "Dockerfile")
    with pytest.raises(UsageError, match="is not a folder"):
        Context.open(tmp_path / "nowhere", "Dockerfile")
