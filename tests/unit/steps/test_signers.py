"""What the publish step signs with."""

import pytest

from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Signing, Spec
from multiarchbuild.oci.signature import ExpiredError, UnprovenError
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.mounts import Mounts
from multiarchbuild.steps.signers import Service, signers
from tests.unit.plan.world import spec


class Given(Mounts):
    """Inputs that nobody has validated."""

    def __init__(self, signing: Signing | None) -> None:
        super().__init__()
        found = Spec.model_validate(spec())
        output = found.output.model_copy(update={"signing": signing})
        self.__dict__["inputs"] = Inputs(
            namespace="team-a", name="a", run="r", spec=found.model_copy(update={"output": output})
        )


def test_nothing_is_published_unsigned_where_it_is_not_said_what_signs() -> None:
    with pytest.raises(StepError, match="does not say what signs") as failed:
        signers(Given(Signing.model_construct()))
    assert failed.value.reason is Reason.INVALID_SPEC


def test_nothing_signs_where_no_signature_is_wanted() -> None:
    assert signers(Given(None)) is None


def test_who_can_change_the_policy_is_told() -> None:
    made = signers(Given(Signing(keyless=True)))
    assert made is not None
    with pytest.raises(StepError, match=r"for namespace team-a\. Ask an administrator to change") as failed:
        made()
    assert failed.value.reason is Reason.POLICY_DENIED


AUTHORITY = Service("The timestamp authority https://tsa.example.com", "`timestampAuthority`")


def test_a_certificate_that_expires_while_there_is_more_to_sign_is_tried_again() -> None:
    with pytest.raises(StepError, match="The next attempt gets another certificate") as failed, AUTHORITY.asked():
        raise ExpiredError("the certificate was valid until 2026-01-01T00:00:00Z")
    assert failed.value.reason is Reason.SIGNING_UNAVAILABLE


def test_what_proves_nothing_is_not_tried_again() -> None:
    with pytest.raises(StepError, match="did not prove anything: compare the clocks") as failed, AUTHORITY.asked():
        raise UnprovenError("compare the clocks")
    assert failed.value.reason is Reason.SIGNING_FAILED
