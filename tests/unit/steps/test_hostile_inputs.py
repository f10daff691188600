"""Whatever people write into a build reaches buildctl and the steps as it is: no value becomes an option of its own.

What reads the arguments back here is independent of what writes them: Python's reader of RFC 4180 for BuildKit's
(github.com/tonistiigi/go-csvvalue), and the kubelet's expansion as Kubernetes documents and implements it
(https://github.com/kubernetes/kubernetes/blob/v1.36.0/third_party/forked/golang/expansion/expand.go).
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from multiarchbuild import steps
from multiarchbuild.api.mounts import WORK
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import Mode
from multiarchbuild.oci.index import Image, assemble
from multiarchbuild.plan.actions import CacheRefs, Placement, StartBuild, StartPublish
from multiarchbuild.plan.policy import Policy
from multiarchbuild.pods import render
from multiarchbuild.steps.buildctl import command
from multiarchbuild.steps.source import Context

STRINGS = 10_000
A_TIME = 40
FRAGMENTS = (
    *",=\"'\\ \t\r\n$(){}[];|&#@%:/-.*?!`~\N{NO-BREAK SPACE}\N{LINE SEPARATOR}\N{PILE OF POO}ü",
    *('""', '","', "\r\n", "$$", "$(", "$(HOME)", "$$(HOME)", "$(TMPDIR", "${HOME}", "--", "-", "=", "x", "0"),
    *(
        ",type=local,dest=/",
        ",push=false",
        ',"src=/etc/passwd"',
        "type=gha",
        "--output=type=tar",
        "--opt",
        "\x7f",
        "\x01",
    ),
)
HOSTILE = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
AT_ONCE = st.lists(HOSTILE, min_size=A_TIME, max_size=A_TIME)
MANY = settings(
    max_examples=STRINGS // A_TIME,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
OUTPUT = (
    "type=image,name=registry.test/team/app,push=true,push-by-digest=true,oci-mediatypes=true,rewrite-timestamp=true"
)
DIGEST = "sha256:" + "0" * 64
AMD64 = Platform.parse("linux/amd64")


def spec(**parts: Any) -> dict[str, Any]:
    """Return a spec with these parts."""
    return {
        "platforms": ["linux/amd64"],
        "source": {"git": {"url": "https://git.test/app", "ref": "main"}},
        "output": {"image": "registry.test/team/app"},
        **parts,
    }


def options(argv: list[str]) -> list[tuple[str, str]]:
    """Return the options of buildctl build as its flags take them: each is one argument, `--name=value`."""
    assert argv[:4] == ["buildctl", "--addr", "unix:///s", "build"]
    split = [argument.partition("=") for argument in argv[4:]]
    assert all(name.startswith("--") and equals for name, equals, _ in split)
    return [(name.removeprefix("--"), value) for name, _, value in split]


def attributes(record: str) -> dict[str, str]:
    """Return the attributes in one record of CSV, each of them given once."""
    (row,) = csv.reader(io.StringIO(record, newline=""), strict=True)
    assert all("=" in field for field in row)
    found = {key: value for key, _, value in (field.partition("=") for field in row)}
    assert len(found) == len(row)
    return found


def expected_opts(given_spec: Mapping[str, Any], vcs: tuple[str, str]) -> dict[str, str]:
    """Return what the frontend has to be told."""
    build = given_spec["build"]
    return {
        "filename": build["dockerfile"],
        "platform": "linux/amd64",
        "multi-platform": "true",
        **({"target": build["target"]} if build["target"] else {}),
        **{f"build-arg:{name}": value for name, value in build["args"].items()},
        **{f"label:{name}": value for name, value in build["labels"].items()},
        **{f"context:{name}": value for name, value in build["contexts"].items()},
        "attest:provenance": "mode=min",
        "build-arg:SOURCE_DATE_EPOCH": "7",
        "vcs:source": vcs[0],
        "vcs:revision": vcs[1],
    }


def test_ten_thousand_hostile_strings_make_no_argument_and_no_attribute_of_buildctl() -> None:
    tried = 0

    @MANY
    @given(AT_ONCE)
    def one(strings: list[str]) -> None:
        nonlocal tried
        tried += len(strings)
        take = iter(strings)
        build = {
            "dockerfile": "d" + next(take),
            "target": next(take),
            "args": {f"A{number}": next(take) for number in range(10)},
            "labels": {f"l.{number}": next(take) for number in range(8)},
            "contexts": {f"c{number}": next(take) for number in range(8)},
        }
        vcs, cache_to = (next(take), next(take)), "t" + next(take)
        cache_from = [next(take) for _ in range(3)]
        secrets = [(next(take), Path("/run", "s" + next(take))) for _ in range(3)]
        assert next(take, None) is None, "every string is used"
        written = spec(build=build)
        argv = command(
            Spec.model_validate(written),
            Context(Path("/c"), 7, vcs),
            ["linux/amd64"],
            address="unix:///s",
            metadata_file=Path("/m"),
            cache_to=cache_to,
            cache_from=cache_from,
            secrets=secrets,
            ssh_key=Path("/k"),
        )
        found = options(argv)
        opts = [(key, value) for name, opt in found if name == "opt" for key, _, value in [opt.partition("=")]]
        assert dict(opts) == expected_opts(written, vcs)
        assert len(opts) == len(expected_opts(written, vcs))
        imports = [attributes(value) for name, value in found if name == "import-cache"]
        assert imports == [{"type": "registry", "ref": ref} for ref in cache_from]
        (export,) = (attributes(value) for name, value in found if name == "export-cache")
        assert export == {
            "type": "registry",
            "ref": cache_to,
            "mode": "max",
            "image-manifest": "true",
            "oci-mediatypes": "true",
            "ignore-error": "true",
        }
        mounted = [attributes(value) for name, value in found if name == "secret"]
        assert mounted == [{"id": name, "src": str(file)} for name, file in secrets]
        rest = [each for each in found if each[0] not in {"opt", "import-cache", "export-cache", "secret"}]
        assert rest == [
            ("progress", "rawjson"),
            ("frontend", "dockerfile.v0"),
            ("local", "context=/c"),
            ("local", "dockerfile=/c"),
            ("metadata-file", "/m"),
            ("output", OUTPUT),
            ("ssh", "default=/k"),
        ]

    one()
    assert tried >= STRINGS


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with $(NAME) replaced as the kubelet does it in command and args of a container."""

    def pieces() -> Iterator[str]:
        at = 0
        while at < len(text):
            if text[at] != "$" or at + 1 == len(text):
                yield text[at]
                at += 1
            elif text[at + 1] == "(" and (end := text.find(")", at + 2)) != -1:
                name = text[at + 2 : end]
                yield variables.get(name, f"$({name})")
                at = end + 1
            else:
                yield "$" if text[at + 1] == "$" else text[at : at + 2]
                at += 2

    return "".join(pieces())


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "foo"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$foo"),
        ("$(NONE)-$(A", "$(NONE)-$(A"),
        ("$$", "$"),
        ("$", "$"),
        ("a$", "a$"),
        ("$A$(A)$", "$Afoo$"),
        ("$()", "$()"),
        ("$($(A))", "$($(A))"),
    ],
)
def test_the_kubelet_expands_so(text: str, result: str) -> None:
    """As its own table test does (expand_test.go)."""
    assert expanded(text, {"A": "foo"}) == result


def received(manifest: Mapping[str, Any]) -> Any:
    """Return the arguments of the step as it parses them in its container."""
    (container,) = manifest["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["HOME"] == WORK, "there is something to expand"
    assert container["command"][-1] == "step"
    return steps._parser().parse_args([expanded(argument, variables) for argument in container["args"]])


def resource() -> MultiArchBuild:
    """Return a build."""
    metadata = {"name": "a", "namespace": "n", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return MultiArchBuild.model_validate({"metadata": metadata, "spec": spec()})


def test_ten_thousand_hostile_strings_reach_the_steps_unexpanded() -> None:
    tried, build, policy = 0, resource(), Policy()
    common: dict[str, Any] = {"name": "p", "run_id": "r", "attempt": 1, "inputs": "i", "deadline": 1}

    @MANY
    @given(AT_ONCE)
    def one(strings: list[str]) -> None:
        nonlocal tried
        tried += len(strings)
        # No ref and no tag begins with '-'; of `--` alone argparse before 3.13 makes an empty list.
        export, *imports = [f"t{text}" for text in strings[:8]]
        tags = [f"t{text}" for text in strings[8:]]
        cache = CacheRefs(export, tuple(imports))
        placement = Placement(Mode.NATIVE, ())
        start = StartBuild(
            **common, until=datetime.now(UTC), platforms=(AMD64,), placement=placement, cache=cache, source=None
        )
        arguments = received(render(start, build, policy))
        assert (arguments.cache_to, arguments.cache_from) == (export, imports)
        assert (arguments.step, arguments.platform) == ("build", ["linux/amd64"])

        publish = StartPublish(**common, tags=tuple(tags), built=None)
        arguments = received(render(publish, build, policy))
        assert (arguments.step, arguments.tag) == ("publish", tags)

    one()
    assert tried >= STRINGS


@given(st.dictionaries(HOSTILE, HOSTILE, max_size=8))
def test_annotations_stand_in_the_index_as_they_are(annotations: dict[str, str]) -> None:
    descriptor = {"mediaType": "m", "digest": DIGEST, "size": 1}
    index = assemble([Image(AMD64, descriptor, ())], annotations)
    assert index.content.get("annotations", {}) == annotations
    assert set(json.loads(index.raw)) == {"schemaVersion", "mediaType", "manifests"} | (
        {"annotations"} if annotations else set()
    )


NUL: dict[str, dict[str, Any]] = {
    "argument": {"build": {"args": {"A": "a\0b"}}},
    "label": {"build": {"labels": {"a": "a\0b"}}},
    "annotation": {"output": {"image": "registry.test/team/app", "annotations": {"a": "a\0b"}}},
    "context": {"build": {"contexts": {"a": "https://a\0b"}}},
    "dockerfile": {"build": {"dockerfile": "a\0b"}},
    "url": {"source": {"git": {"url": "https://git.test/a\0b"}}},
    "subdirectory": {"source": {"git": {"url": "https://git.test/a", "subdirectory": "a\0b"}}},
}


@pytest.mark.parametrize("parts", NUL.values(), ids=NUL)
def test_a_nul_which_no_program_can_be_given_is_refused_with_the_field(parts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must not hold a NUL"):
        Spec.model_validate(spec(**parts))
