"""The options of buildx as a resource."""

from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.spec import Spec
from multiarchbuild.cli.compose import Options, dockerfile, manifest, platforms
from multiarchbuild.cli.errors import UsageError

SOURCE = f"r.test/team/app@sha256:{'a' * 64}"
BOTH = ("linux/amd64,linux/arm64",)


def spec(**options: Any) -> dict[str, Any]:
    made = manifest(Options(**{"tags": ["r.test/team/app:v1"], "platforms": BOTH, **options}), SOURCE)
    # What the models refuse the API server would too.
    Spec.model_validate(made["spec"], extra="forbid")
    return dict(made["spec"])


def test_what_is_not_said_is_not_in_the_resource() -> None:
    assert manifest(Options(tags=["r.test/team/my.app:v1"], platforms=BOTH), SOURCE) == {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": {"name": "my-app"},
        "spec": {
            "platforms": ["linux/amd64", "linux/arm64"],
            "source": {"oci": {"image": SOURCE}},
            "build": {"dockerfile": "Dockerfile"},
            "output": {"image": "r.test/team/my.app", "tags": ["v1"]},
        },
    }


def test_every_option_has_its_field() -> None:
    found = spec(
        tags=["r.test:5000/app", "r.test:5000/app:{date}", "r.test:5000/app"],
        dockerfile="ci/Dockerfile",
        target="runtime",
        args=["A=1=2", "FROM_ENV", "EMPTY="],
        labels=["a.b=c", "empty"],
        annotations=["a.b=d"],
        contexts=["base=docker-image://r.test/base:1"],
        secrets=["id=npm,secret=npm-token/key"],
        registry_secrets=["pull"],
        signing_secret="cosign-key",
        provenance="max",
        sbom=True,
        compression="zstd,level=3,force=true",
        format="index",
        destinations=["mirror.test/app,secret=mirror,secret=other", "user/app"],
        cache=False,
        environment={"FROM_ENV": "yes"},
    )
    assert found["output"] == {
        "image": "r.test:5000/app",
        "tags": ["latest", "{date}"],
        "annotations": {"a.b": "d"},
        "secretRefs": [{"name": "pull"}],
        "signing": {"secretRef": {"name": "cosign-key"}},
        "compression": {"type": "Zstd", "level": 3, "force": True},
        "format": "Index",
        "destinations": [
            {"image": "mirror.test/app", "secretRefs": [{"name": "mirror"}, {"name": "other"}]},
            {"image": "docker.io/user/app"},
        ],
    }
    assert found["attestations"] == {"provenance": "Max", "sbom": True}
    assert found["build"] == {
        "dockerfile": "ci/Dockerfile",
        "target": "runtime",
        "args": {"A": "1=2", "FROM_ENV": "yes", "EMPTY": ""},
        "labels": {"a.b": "c", "empty": ""},
        "contexts": {"base": "docker-image://r.test/base:1"},
        "secrets": [{"id": "npm", "secretKeyRef": {"name": "npm-token", "key": "key"}}],
    }
    assert found["cache"] == {"import": False}


def test_a_signature_needs_no_key() -> None:
    assert spec(signing_keyless=True)["output"]["signing"] == {"keyless": True}


def test_a_request_is_an_annotation() -> None:
    made = manifest(Options(tags=["r.test/app"], platforms=BOTH), SOURCE, request="now")
    assert made["metadata"] == {"name": "app", "annotations": {"multiarch.build/rebuild-requested-at": "now"}}


@pytest.mark.parametrize(
    ("tag", "name"),
    [("r.test/team/app", "app"), ("r.test:5000/my_app.web:v1", "my-app-web"), ("user/hello--world", "hello-world")],
)
def test_the_name_is_that_of_the_image(tag: str, name: str) -> None:
    assert Options(tags=[tag]).resource_name == name


def test_an_image_without_registry_is_of_docker_hub() -> None:
    assert Options(tags=["user/app:v1"]).output == ("docker.io/user/app", ["v1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": []}, "name the image with --tag"),
        ({"signing_secret": "key", "signing_keyless": True}, "give one of them"),
        ({"tags": ["r.test/a", "r.test/b"]}, "names r.test/a and r.test/b"),
        ({"tags": [f"r.test/a@sha256:{'a' * 64}"]}, "name a tag; the digest is the result"),
        ({"tags": ["r.test/a:"]}, "write registry/name:tag"),
        ({"platforms": []}, "name the platforms with --platform"),
        ({"platforms": ["linux/amd46"]}, "platform 'linux/amd46' is not supported"),
        ({"args": ["NOT_SET"]}, "the environment has no variable NOT_SET: write NOT_SET=value"),
        ({"args": ["=x"]}, "write NAME=value"),
        ({"labels": ["=x"]}, "write name=value"),
        ({"secrets": ["id=npm,src=/root/.npmrc"]}, "cannot read files of this machine"),
        ({"secrets": ["id=npm,secret=token"]}, "write id=ID,secret=NAME/KEY"),
        ({"name": "No"}, "'No' is not a valid Kubernetes name"),
        ({"compression": "lz4"}, "--compression lz4: write gzip, zstd, estargz, uncompressed, and after it ,level=N"),
        ({"compression": "zstd,level=high"}, "--compression zstd,level=high: write"),
        ({"destinations": ["mirror.test/app:1"]}, "--destination mirror.test/app:1: write registry/name without a tag"),
        ({"destinations": ["mirror.test/app,name=x"]}, "--destination mirror.test/app,name=x: write"),
    ],
)
def test_a_mistake_says_what_to_write(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec(**{"environment": {}, **options})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gzip", {"type": "Gzip"}),
        ("zstd,compression-level=22", {"type": "Zstd", "level": 22}),
        ("estargz,force-compression=false", {"type": "Estargz", "force": False}),
        ("uncompressed", {"type": "Uncompressed"}),
    ],
)
def test_compression_is_written_as_for_buildx(text: str, expected: dict[str, Any]) -> None:
    assert spec(compression=text)["output"]["compression"] == expected


def test_platforms_come_in_lists_and_one_by_one() -> None:
    assert platforms(["amd64, arm64", "linux/arm/v7", "linux/arm64"]) == ["linux/amd64", "linux/arm64", "linux/arm/v7"]


def test_the_dockerfile_is_named_from_where_one_stands(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert dockerfile(tmp_path / "app", None, tmp_path) == "Dockerfile"
    assert dockerfile(tmp_path / "app", "app/ci/Dockerfile", tmp_path) == "ci/Dockerfile"
    assert dockerfile(tmp_path / "app", str(tmp_path / "app/x"), tmp_path) == "x"
    with pytest.raises(UsageError, match="must be inside"):
        dockerfile(tmp_path / "app", "Dockerfile", tmp_path)
    with pytest.raises(UsageError, match="standard input is not supported"):
        dockerfile(tmp_path / "app", "-", tmp_path)
