"""Which certificates a step trusts for whom."""

from dataclasses import replace
from pathlib import Path

import pytest

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.inputs import Inputs, Registry
from multiarchbuild.api.keyless import Keyless
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.token_services import TokenServices
from multiarchbuild.steps.mounts import Mounts
from multiarchbuild.steps.trust import ca_file, identity_ca_file, registry_ca_file, signing_ca_file
from tests.unit.plan.world import spec

HOSTS = ("a.test", "b.test:5000", "docker.io")


@pytest.fixture(params=["", "FOR-ALL"])
def mounts(request: pytest.FixtureRequest, tmp_path: Path) -> Mounts:
    """A pod whose policy has a CA for the second and the third registry, and one for all or none."""
    made = Mounts(tmp_path)
    folder = made.at(paths.INPUTS)
    folder.mkdir(parents=True)
    made.work.mkdir(parents=True)
    registries = tuple(Registry(host=host) for host in HOSTS)
    inputs = Inputs(namespace="n", name="a", run="r", spec=Spec.model_validate(spec()), registries=registries)
    (folder / paths.INPUTS_FILE).write_text(inputs.model_dump_json(by_alias=True, exclude_none=True))
    for number, text in ((1, "FOR-B"), (2, "FOR-HUB")):
        (folder / paths.REGISTRY_CA_FILE.format(number)).write_text(text)
    if request.param:
        (folder / paths.CA_FILE).write_text(request.param)
    return made


def trusted(file: str | None) -> set[str]:
    text = Path(file).read_text() if file else ""
    return {mark for mark in ("FOR-ALL", "FOR-B", "FOR-HUB") if mark in text}


def test_each_registry_has_its_own_and_what_is_for_all(mounts: Mounts) -> None:
    for_all = trusted(ca_file(mounts))
    assert trusted(registry_ca_file(mounts, "a.test")) == for_all
    assert trusted(registry_ca_file(mounts, "b.test:5000")) == {"FOR-B", *for_all}
    assert trusted(registry_ca_file(mounts, "b.test")) == for_all
    assert trusted(registry_ca_file(mounts, "index.docker.io")) == {"FOR-HUB", *for_all}
    assert trusted(registry_ca_file(mounts, *HOSTS)) == {"FOR-B", "FOR-HUB", *for_all}


def test_where_tokens_are_sent_what_the_pod_is_told_is_trusted_and_nothing_else(mounts: Mounts) -> None:
    (mounts.at(paths.INPUTS) / "signing.ca.crt").write_text("FOR-B")
    assert identity_ca_file(mounts) is signing_ca_file(mounts) is None
    keyless = Keyless(fulcio="https://f.test", timestamp_authority="https://t.test", ca_bundle="FOR-HUB")
    told = replace(mounts, services=TokenServices(keyless=keyless, ca_bundle="FOR-B"))
    assert trusted(identity_ca_file(told)) == {"FOR-B"}
    assert trusted(signing_ca_file(told)) == {"FOR-B", "FOR-HUB"}
