"""A cluster as the demo sees it, as far as none is needed."""

from dataclasses import replace
from pathlib import Path

import pytest

from hack import registry, target
from hack.target import CommandError, Target
from tests.cluster.facts import Facts

FACTS = Facts(
    instance="",
    kubeconfig="/nowhere",
    bin="",
    registry="registry.example.com/team",
    registry_insecure=False,
    secure_registry=None,
    buildkitd_toml="",
    images={},
)


def test_a_program_that_is_missing_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    lost = Target(replace(FACTS, bin=str(tmp_path)))
    with pytest.raises(CommandError, match=r"no-such-program is not on PATH: install it$"):
        lost.run("no-such-program")


@pytest.mark.parametrize("program", ["kubectl", "helm"])
def test_where_to_get_what_the_demo_needs(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match=rf"{program} is not on PATH: install it \(https://"):
        Target(FACTS).run(program, "version")


def test_nodes_may_call_the_registry_by_another_name_than_pods() -> None:
    there = Target(replace(FACTS, registry=registry.FOR_PODS, registry_of_nodes=registry.FOR_NODES))
    assert there.pulled(f"{registry.FOR_PODS}/mab-demo/hello@sha256:1") == "localhost:25000/mab-demo/hello@sha256:1"
    assert there.pulled("docker.io/library/busybox") == "docker.io/library/busybox"
    assert Target(FACTS).pulled("registry.example.com/team/app:1") == "registry.example.com/team/app:1"


def test_a_cluster_without_kubectl_is_an_error_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("MAB_TEST_REGISTRY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert target.finish(lambda _: None, bring_registry=True) == 1
    assert "error: kubectl is not on PATH" in capsys.readouterr().err
    assert target.finish(lambda _: None) == 1
    assert "MAB_TEST_REGISTRY" in capsys.readouterr().err


def test_a_release_needs_no_other_registry_than_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts only where there is no operator yet is known already."""
    monkeypatch.setenv("KUBECONFIG", "/somebody/config")
    monkeypatch.delenv("MAB_TEST_REGISTRY", raising=False)
    found = target.from_environment(unnamed=target.own_registry)
    assert (found.facts.kubeconfig, found.facts.registry) == ("/somebody/config", registry.FOR_PODS)


def test_a_registry_speaks_http_where_policy_or_cluster_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("registries: [{host: 'registry.internal:5000', plainHttp: true}]", encoding="utf-8")
    monkeypatch.setenv("MAB_POLICY", str(policy))
    local = Target(replace(FACTS, buildkitd_toml='[registry."registry.local:5000"]\n  http = true\n'))
    spoken = {
        host: local.plain_http(f"{host}/you") for host in ("registry.internal:5000", "registry.local:5000", "ghcr.io")
    }
    assert spoken == {"registry.internal:5000": True, "registry.local:5000": True, "ghcr.io": False}
