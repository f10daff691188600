import csv
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.spec import Spec
from multiarchbuild.steps.buildctl import command, record
from multiarchbuild.steps.source import Context

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)

OPT_SBOM = "--opt=attest:sbom="


def spec(**parts: Any) -> Spec:
    base = {
        "platforms": ["linux/amd64", "linux/arm64"],
        "source": {"inline": {"files": {"Dockerfile": ""}}},
        "output": {"image": "registry.test/team/app"},
    }
    return Spec.model_validate({**base, **parts})


def arguments(built: Spec, context: Context | None = None, **options: Any) -> list[str]:
    defaults: dict[str, Any] = {
        "address": "unix:///s",
        "metadata_file": Path("/m"),
        "cache_to": None,
        "cache_from": (),
        "secrets": (),
        "ssh_key": None,
    }
    context = context or Context(Path("/c"), 0, None)
    return command(built, context, ["linux/amd64"], **{**defaults, **options})


@given(st.dictionaries(TEXT.filter(lambda key: "=" not in key), TEXT, min_size=1, max_size=4))
def test_a_record_is_read_back_as_it_was_whatever_it_holds(fields: dict[str, str]) -> None:
    (row,) = csv.reader([record(fields)])
    assert dict(field.split("=", 1) for field in row) == fields


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), ANY_TEXT, max_size=4))
def test_each_build_argument_is_one_argument_whatever_it_holds(args: dict[str, str]) -> None:
    given_args = [one for one in arguments(spec(build={"args": args})) if one.startswith("--opt=build-arg:")]
    expected = [f"--opt=build-arg:{name}={value}" for name, value in args.items()]
    assert given_args == [*expected, "--opt=build-arg:SOURCE_DATE_EPOCH=0"]


def test_the_image_is_pushed_by_digest_with_provenance() -> None:
    found = arguments(spec())
    assert "--opt=attest:provenance=mode=min" in found
    assert (
        "--output=type=image,name=registry.test/team/app,push=true,push-by-digest=true,oci-mediatypes=true,"
        "rewrite-timestamp=true"
    ) in found


@given(ANY_TEXT)
def test_an_sbom_is_made_by_the_generator_of_the_policy_where_it_is_asked_for(image: str) -> None:
    assert not [one for one in arguments(spec(), sbom_generator=image) if "sbom" in one]
    (found,) = [
        one for one in arguments(spec(attestations={"sbom": True}), sbom_generator=image) if one.startswith(OPT_SBOM)
    ]
    (row,) = csv.reader([found.removeprefix(OPT_SBOM)])
    assert row == [f"generator={image}"]


def test_a_commit_gives_the_time_and_stands_in_the_provenance() -> None:
    found = arguments(spec(), Context(Path("/c"), 1700000000, ("https://git.test/app", "c0ffee")))
    assert "--opt=build-arg:SOURCE_DATE_EPOCH=1700000000" in found
    assert {"--opt=vcs:source=https://git.test/app", "--opt=vcs:revision=c0ffee"} <= set(found)


def test_a_build_need_not_be_reproducible() -> None:
    text = " ".join(arguments(spec(reproducible=False)))
    assert "SOURCE_DATE_EPOCH" not in text
    assert "rewrite-timestamp" not in text


def test_the_cache_is_exported_so_that_its_failure_fails_nothing() -> None:
    found = arguments(spec(), cache_to="r.test/c:a", cache_from=["r.test/c:a", "r.test/c:b"])
    assert "--import-cache=type=registry,ref=r.test/c:b" in found
    export = "type=registry,ref=r.test/c:a,mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"
    assert f"--export-cache={export}" in found


def test_options_of_the_build() -> None:
    build = {
        "dockerfile": "d/Dockerfile",
        "target": "runtime",
        "labels": {"a.b": "c"},
        "contexts": {"base": "docker-image://r.test/base"},
        "network": "None",
    }
    found = arguments(spec(build=build), secrets=[("npm", Path("/s,x/token"))], ssh_key=Path("/k"))
    assert {
        "--opt=filename=d/Dockerfile",
        "--opt=target=runtime",
        "--opt=label:a.b=c",
        "--opt=context:base=docker-image://r.test/base",
        "--opt=force-network-mode=none",
        '--secret=id=npm,"src=/s,x/token"',
        "--ssh=default=/k",
    } <= set(found)


def frontend_options(found: list[str]) -> list[str]:
    return [one for one in found if "cmdline" in one or "BUILDKIT_SYNTAX" in one]


def test_the_frontend_of_the_policy_overrides_what_a_build_asks_for() -> None:
    asked = spec(build={"args": {"BUILDKIT_SYNTAX": "example.com/own:1"}})
    assert frontend_options(arguments(asked)) == ["--opt=build-arg:BUILDKIT_SYNTAX=example.com/own:1"]
    assert frontend_options(arguments(asked, frontend="builtin")) == ["--opt=cmdline=builtin"]
    image = "registry.test/mirror/dockerfile:1"
    assert frontend_options(arguments(asked, frontend=image)) == [f"--opt=build-arg:BUILDKIT_SYNTAX={image}"]
    assert frontend_options(arguments(spec())) == []


def test_compression_is_that_of_the_image_and_of_the_cache() -> None:
    output = {"image": "registry.test/app", "compression": {"type": "Zstd", "level": 0, "force": True}}
    found = arguments(spec(output=output), cache_to="registry.test/app:cache")
    fields = "compression=zstd,compression-level=0,force-compression=true"
    assert [one.endswith(fields) for one in found if one.startswith(("--output=", "--export-cache="))] == [True, True]
    estargz = spec(output={"image": "registry.test/app", "compression": {"type": "Estargz"}})
    assert any(
        one.endswith(",oci-mediatypes=true,rewrite-timestamp=true,compression=estargz") for one in arguments(estargz)
    )


def test_a_proxy_is_a_build_argument_unless_the_build_has_its_own_in_any_spelling() -> None:
    proxy = {"HTTP_PROXY": "http://p.test:1", "NO_PROXY": ".svc"}
    own = spec(build={"args": {"http_proxy": "http://mine.test:1"}})
    found = [one for one in arguments(own, proxy=proxy) if "proxy" in one.lower()]
    assert found == ["--opt=build-arg:NO_PROXY=.svc", "--opt=build-arg:http_proxy=http://mine.test:1"]
