"""Which identities a build uses, for what, and what the policy says of them."""

from typing import Any

import pytest
from pydantic import ValidationError

from multiarchbuild.api.identity import Identities, Identity, Provider, ecr_region
from multiarchbuild.plan.logins import logins
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.rules import pod_refusal
from tests.unit.plan.world import build

ROLE = "arn:aws:iam::123456789012:role/builds-team"
ECR, OTHER = "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "210987654321.dkr.ecr.us-east-1.amazonaws.com"
AWS = {"provider": "AWS", "role": ROLE}
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
POOL = "projects/42/locations/global/workloadIdentityPools/clusters/providers/test"


def policy(*identities: str) -> Policy:
    return Policy.model_validate({"tenants": [{"namespaces": ["*"], "identities": identities}]})


def test_each_identity_logs_in_to_what_its_field_is_about() -> None:
    spec = build(
        source={"oci": {"image": f"{ECR}/team/source:v1", "identity": AWS}},
        build={"identity": {**AWS, "registries": [OTHER]}},
        output={
            "image": f"{ECR}/team/app",
            "identity": {**AWS, "registries": [OTHER]},
            "destinations": [{"image": f"{OTHER}/app", "identity": AWS}],
        },
        cache={"repository": f"{ECR}/team/cache", "identity": AWS},
    ).spec
    assert [(each.field, each.hosts, each.path, each.destination) for each in logins(spec)] == [
        ("output.identity", (ECR, OTHER), "", None),
        ("output.destinations[0].identity", (OTHER,), "", 0),
        ("cache.identity", (ECR,), "team/cache", None),
        ("source.oci.identity", (ECR,), "team/source", None),
        ("build.identity", (OTHER,), "", None),
    ]


@pytest.mark.parametrize("image", ["r.test:5000/team/app:1", f"r.test:5000/team/app@sha256:{'0' * 64}"])
def test_an_artifact_is_a_repository_without_tag_and_digest(image: str) -> None:
    (login,) = logins(build(source={"oci": {"image": image, "identity": AWS}}).spec)
    assert (login.hosts, login.path) == (("r.test:5000",), "team/app")


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (AWS, f"aws/{ROLE}"),
        ({"provider": "Azure", "role": CLIENT, "tenantId": TENANT}, f"azure/{TENANT}/{CLIENT}"),
        ({"provider": "Google"}, "google/metadata"),
        ({"provider": "Google", "workloadIdentityProvider": POOL}, f"google/{POOL}"),
        ({"provider": "Google", "role": "a@p.iam.gserviceaccount.com"}, "google/metadata/a@p.iam.gserviceaccount.com"),
    ],
)
def test_the_policy_knows_an_identity_by_its_name(identity: dict[str, Any], name: str) -> None:
    assert Identity.model_validate(identity).name == name
    image = {"AWS": f"{ECR}/app", "Azure": "team.azurecr.io/app", "Google": "europe-docker.pkg.dev/p/app"}
    mine = build(output={"image": image[identity["provider"]], "identity": identity})
    assert pod_refusal(mine, policy(name)) == ""
    assert pod_refusal(mine, policy("*")) == ""
    assert f"output.identity is {name}, but builds of namespace" in pod_refusal(mine, policy(f"{name}x"))


def test_without_an_entry_no_identity_may_be_used() -> None:
    mine = build(output={"image": f"{ECR}/app", "identity": AWS})
    for each in (Policy(), policy()):
        assert "may use none" in pod_refusal(mine, each)
    assert pod_refusal(build(), Policy()) == ""


def test_a_pattern_holds_the_namespace() -> None:
    mine = build(output={"image": f"{ECR}/app", "identity": {**AWS, "role": f"{ROLE}-a"}})
    assert pod_refusal(mine, policy("aws/arn:aws:iam::123456789012:role/builds-{namespace}")) == ""
    assert pod_refusal(mine, policy("aws/arn:aws:iam::*:role/other-{namespace}")) != ""


@pytest.mark.parametrize("pattern", ["arn:aws:iam::1:role/x", "aws", "aws2/x", "gcp/x", "aws/[ab]", "azure/{tenant}/x"])
def test_a_pattern_that_fits_no_name_is_refused(pattern: str) -> None:
    if pattern == "aws":
        assert policy(pattern)
        return
    with pytest.raises(ValidationError):
        policy(pattern)


def test_a_login_goes_to_registries_of_its_provider_only() -> None:
    everything = policy("*")
    stolen = build(output={"image": "evil.example.com/team-a/app", "identity": AWS})
    expected = (
        "output.identity would log in to evil.example.com, which is not a registry of AWS "
        "(policy: identities.aws.registries)"
    )
    assert expected in pod_refusal(stolen, everything)
    beside = build(output={"image": f"{ECR}/app", "identity": {**AWS, "registries": ["evil.example.com"]}})
    assert "evil.example.com" in pod_refusal(beside, everything)
    named = Identities.model_validate({"aws": {"registries": ["evil.example.com"]}})
    assert pod_refusal(stolen, everything.model_copy(update={"identities": named})) == ""


@pytest.mark.parametrize(
    ("provider", "host", "serves"),
    [
        (Provider.AWS, ECR, True),
        (Provider.AWS, "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", True),
        (Provider.AWS, "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        (Provider.AWS, "123456789012.dkr-ecr.eu-west-1.on.aws", True),
        (Provider.AWS, f"{ECR}.evil.example.com", False),
        (Provider.AWS, "123456789012.dkr.ecr.eu-west-1.amazonaws.com:444", False),
        (Provider.AWS, "evil-123456789012.dkr.ecr.eu-west-1.amazonaws.com", False),
        (Provider.AWS, "europe-docker.pkg.dev", False),
        (Provider.GOOGLE, "europe-west1-docker.pkg.dev", True),
        (Provider.GOOGLE, "eu.gcr.io", True),
        (Provider.GOOGLE, "gcr.io", True),
        (Provider.GOOGLE, "evil.pkg.dev", False),
        (Provider.GOOGLE, "gcr.io.evil.example.com", False),
        (Provider.AZURE, "Team.azurecr.io", True),
        (Provider.AZURE, "team.azurecr.cn", True),
        (Provider.AZURE, "team.azurecr.io.evil.example.com", False),
        (Provider.AZURE, "a.b.azurecr.io", False),
    ],
)
def test_the_hosts_of_a_provider(provider: Provider, host: str, *, serves: bool) -> None:
    assert Identities().serves(provider, host) is serves


def test_the_region_of_ecr_is_in_its_host() -> None:
    assert ecr_region(ECR) == ("eu-west-1", "amazonaws.com")
    assert ecr_region("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn") == ("cn-north-1", "amazonaws.com.cn")
    assert ecr_region("123456789012.dkr-ecr.eu-west-1.on.aws") == ("eu-west-1", "amazonaws.com")
    assert ecr_region("registry.example.com") is None
