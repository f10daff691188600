"""Which files count by `source.paths`, and what tells two trees apart."""

from pathlib import Path

import pytest

from multiarchbuild.api.source import Paths
from multiarchbuild.steps.paths import digest, in_folder, of_the_build

FILES = (
    "Dockerfile",
    "README.md",
    "docs/a.md",
    "libs/go/a.go",
    "libs/go/deep/b.go",
    "services/api/m.py",
    "services/apiary/x",
)


def counting(paths: Paths, always: tuple[str, ...] = ("Dockerfile",)) -> list[str]:
    """Return the files whose change is one, the Dockerfile left out."""
    before = digest(paths, [(name, "1") for name in FILES], always=always)
    return [
        changed
        for changed in FILES
        if digest(paths, [(name, "2" if name == changed else "1") for name in FILES], always=always) != before
    ]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["services/api"], [], ["Dockerfile", "services/api/m.py"]),
        (["services/*"], [], ["Dockerfile", "services/api/m.py", "services/apiary/x"]),
        (["services/ap?"], [], ["Dockerfile", "services/api/m.py"]),
        (["libs/*.go"], [], ["Dockerfile"]),
        (["libs/**/*.go"], [], ["Dockerfile", "libs/go/a.go", "libs/go/deep/b.go"]),
        (["libs/**"], ["libs/go/deep"], ["Dockerfile", "libs/go/a.go"]),
        (["**/*.md"], [], ["Dockerfile", "README.md", "docs/a.md"]),
        ([], ["**/*.md", "services"], ["Dockerfile", "libs/go/a.go", "libs/go/deep/b.go"]),
        ([], ["Dockerfile"], list(FILES)),
        (["a.b"], [], ["Dockerfile"]),
    ],
)
def test_what_counts(include: list[str], exclude: list[str], expected: list[str]) -> None:
    assert counting(Paths(include=tuple(include), exclude=tuple(exclude))) == expected


def test_a_file_that_comes_or_goes_is_a_change_and_the_order_is_none() -> None:
    paths = Paths(include=("a",))
    one = digest(paths, [("a/1", "x"), ("a/2", "y")], always=())
    assert digest(paths, [("a/2", "y"), ("a/1", "x"), ("b", "z")], always=()) == one
    assert digest(paths, [("a/1", "x")], always=()) != one
    assert digest(paths, [("a/1", "x"), ("a/3", "y")], always=()) != one


def test_other_patterns_have_another_digest() -> None:
    assert digest(Paths(include=("a",)), [], always=()) != digest(Paths(include=("b",)), [], always=())


def test_files_of_a_folder_are_told_apart_by_name_content_mode_and_target(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run").write_text("one")
    (tmp_path / "a/link").symlink_to("/nowhere")
    before = dict(in_folder(tmp_path))
    assert sorted(before) == ["a/link", "a/run"]
    (tmp_path / "a/run").chmod(0o755)
    assert dict(in_folder(tmp_path)) != before
    (tmp_path / "a/link").unlink()
    (tmp_path / "a/link").symlink_to("/elsewhere")
    assert len({*before.items(), *in_folder(tmp_path)}) == 4


@pytest.mark.parametrize(
    ("subdirectory", "name", "expected"),
    [
        ("", "Dockerfile", ("Dockerfile", "Dockerfile.dockerignore", ".dockerignore")),
        ("app", "docker/D", ("app/docker/D", "app/docker/D.dockerignore", "app/.dockerignore")),
        (".", "./D", ("D", "D.dockerignore", ".dockerignore")),
    ],
)
def test_what_every_build_reads_is_found_from_the_root(subdirectory: str, name: str, expected: tuple[str, ...]) -> None:
    assert of_the_build(subdirectory, name) == expected


@pytest.mark.parametrize("link", ["120000 blob 12ab", "link docs/a.md"])
def test_where_the_dockerfile_is_a_link_all_files_count(link: str) -> None:
    paths = Paths(include=("services",))

    def of(changed: str) -> str:
        entries = [(name, "2" if name == changed else "1") for name in FILES if name != "Dockerfile"]
        return digest(paths, [*entries, ("Dockerfile", link)], always=("Dockerfile",))

    assert of("docs/a.md") != of("")
