"""The policy file: what is read, and one line that names the field for each mistake."""

from pathlib import Path

import pytest

from multiarchbuild.controller.settings import PolicyError, load_policy
from multiarchbuild.plan.policy import Isolation, Policy


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path) -> None:
    assert load_policy(None) == Policy()
    assert load_policy(write(tmp_path, "# nothing\n")) == Policy()


def test_names_are_camel_case_as_in_kubernetes(tmp_path: Path) -> None:
    policy = load_policy(
        write(
            tmp_path,
            """
            isolation: Privileged
            images: {pullPolicy: Always}
            caBundle: PEM
            registries: [{host: "registry:5000", plainHttp: true, mirrors: [mirror]}]
            """,
        )
    )
    assert policy.isolation is Isolation.PRIVILEGED
    assert policy.images.pull_policy == "Always"
    assert policy.ca_bundle == "PEM"
    assert policy.registries[0].plain_http
    assert policy.registries[0].mirrors == ("mirror",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("isolatoin: Rootless", "isolatoin: there is no such field, did you mean isolation?"),
        ("images: {stepp: x}", "images.stepp: there is no such field, did you mean step?"),
        ("registries: [{host: a}, {host: b, plainHtpp: true}]", "registries[1].plainHtpp: there is no such"),
        ("images: {zzz: x}", "images.zzz: there is no such field: use one of step, buildkit, frontend, pullPolicy"),
        ("isolation: Docker", "isolation: Input should be 'Rootless' or 'Privileged', not 'Docker'"),
        ("images: {step: ''}", "images.step: String should have at least 1 character, not ''"),
        ("emulation: {allowed: perhaps}", "emulation.allowed: Input should be a valid boolean"),
        ("registries: [{plainHttp: true}]", "registries[0].host: Field required"),
        ("isolation: Rootless\nisolation: Privileged", "isolation is there twice"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "is no valid YAML"),
        ("a: !!python/object:os.system x", "is no valid YAML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_each_mistake_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(write(tmp_path, "isolation: x\nimages: {step: 1}\nfoo: bar\n"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load_policy(tmp_path / "none.yaml")
