"""Which registries a step logs in to by an identity."""

from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.identity import Aws, Identities
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.token_services import TokenServices
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.identities import exchanges
from multiarchbuild.steps.mounts import Mounts
from tests.unit.plan.world import spec

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ROLE: dict[str, Any] = {"provider": "AWS", "role": "arn:aws:iam::123456789012:role/a"}


def logging_in_to(folder: Path, *hosts: str) -> Mounts:
    """Return the mounts of a pod whose inputs, which somebody has replaced, want logins to `hosts`."""
    services = TokenServices(identities=Identities(aws=Aws(registries=("own.test",))))
    made = Mounts(folder, services=services)
    made.inputs_folder.mkdir(parents=True)
    made.work.mkdir(parents=True)
    output = {"image": f"{ECR}/app", "identity": {**ROLE, "registries": hosts}}
    inputs = Inputs(namespace="n", name="a", run="r", spec=Spec.model_validate({**spec(), "output": output}))
    (made.inputs_folder / paths.INPUTS_FILE).write_text(inputs.model_dump_json(by_alias=True, exclude_none=True))
    return made


def test_it_logs_in_to_registries_of_the_provider_and_of_the_policy(tmp_path: Path) -> None:
    assert [entry.host for entry in exchanges(logging_in_to(tmp_path, "own.test"), None)] == [ECR, "own.test"]


def test_it_logs_in_to_no_other_whatever_its_inputs_say(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"output\.identity would log in to evil\.test") as raised:
        exchanges(logging_in_to(tmp_path, "own.test", "evil.test"), None)
    assert raised.value.reason is Reason.POLICY_DENIED
