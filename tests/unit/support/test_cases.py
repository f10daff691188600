"""The format of cases: what is read, and what a file that is written wrongly is told."""

from pathlib import Path

import pytest

from tests.support import cases

HEAD = {
    "report": "somewhere/tool#1",
    "wrong": "it hangs",
    "right": "Failed once,\n#   and soon",
    "expect": "Failed BuildFailed,OutOfMemory",
    "prepare": "true",
    "check": "kubectl get mab",
    "time": "300",
}
MANIFEST = "# of the manifest\nkind: MultiArchBuild\nmetadata: {name: short}\nspec: {source: {git: {url: GITURL}}}\n"


def write(folder: Path, manifest: str = MANIFEST, **head: str) -> Path:
    path = folder / "07-short.yaml"
    lines = "".join(f"# {key}: {text}\n" for key, text in {**HEAD, **head}.items() if text)
    path.write_text(lines + manifest.removeprefix("# of the manifest\n"), encoding="utf-8")
    return path


def test_a_case_is_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.with_suffix(".sh").touch()
    case = cases.read(path)
    assert (case.name, case.result, case.seconds) == ("short", "Failed", 300)
    assert case.reasons == {"BuildFailed", "OutOfMemory"}
    assert (case.prepare, case.checks) == (("true",), ("kubectl get mab",))
    assert case.needs_git
    assert case.script == tmp_path / "07-short.sh"


def test_what_may_be_left_out(tmp_path: Path) -> None:
    case = cases.read(write(tmp_path, expect="Ready", prepare="", check="", time=""))
    assert (case.result, case.reasons, case.prepare, case.checks) == ("Ready", frozenset(), (), ())
    assert (case.seconds, case.script) == (cases.SECONDS, None)


def test_a_line_is_continued_and_checks_are_many(tmp_path: Path) -> None:
    case = cases.read(write(tmp_path, check="true &&\n#   test -e file\n# check: false"))
    assert case.checks == ("true && test -e file", "false")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"report": ""}, "write one line `# report: …`"),
        ({"expect": ""}, "write one line `# expect: …`"),
        ({"expect": "Failed"}, "is Ready, Failed REASON"),
        ({"expect": "Ready Succeeded"}, "is Ready, Failed REASON"),
        ({"expect": "Broken"}, "is Ready, Failed REASON"),
        ({"time": "4m"}, "one number of seconds"),
        ({"chek": "true"}, "unknown key `# chek:`"),
        ({"check": "true\n#test -e file"}, "neither `# key: value` nor continues"),
    ],
)
def test_what_is_written_wrongly_is_said(head: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(cases.CaseError, match=words) as error:
        cases.read(write(tmp_path, **head))
    assert str(error.value).startswith("07-short.yaml: ")


@pytest.mark.parametrize(
    "manifest",
    [
        "kind: Secret\nmetadata: {name: short}\n",
        "kind: MultiArchBuild\nmetadata: {name: other}\n",
        "---\n".join(["kind: MultiArchBuild\nmetadata: {name: short}\n"] * 2),
    ],
)
def test_the_build_has_the_name_of_the_file(manifest: str, tmp_path: Path) -> None:
    with pytest.raises(cases.CaseError, match="one MultiArchBuild, named short"):
        cases.read(write(tmp_path, manifest))


@pytest.mark.parametrize("path", sorted(cases.FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_case_of_the_suite_is_read(path: Path) -> None:
    case = cases.read(path)
    assert case.checks, "an outcome that is not looked at proves little"
    assert case.needs_git <= (case.script is not None)
