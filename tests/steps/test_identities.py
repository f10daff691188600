"""Logins by identity: of AWS with moto, of Google and Azure with servers that follow what they document."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.identity import token_file
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published, Resolved
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.plan.proxy import ProxyPolicy
from multiarchbuild.steps import logins
from tests.cluster import build, pki
from tests.cluster.layout import cache_directory
from tests.steps.conftest import Pod, Pods, Services, start_buildkitd
from tests.steps.servers import Proxy, listens, registry_config, running, wait
from tests.support import moto
from tests.support.clouds import ACCOUNT, CLIENT, POOL, TENANT, Cloud
from tests.support.ports import free_port

BUILD = ("build", "--platform=linux/amd64")
SERVICE_ACCOUNT_TOKEN = "eyJhbGciOiJSUzI1NiJ9.service-account.token"
AWS, AZURE, GOOGLE = "sts.amazonaws.com", "api://AzureADTokenExchange", f"https://iam.googleapis.com/{POOL}"
REGISTRY, SERVERS = "cloud.test:5000", "http://servers.test"
BY_FEDERATION = {"provider": "Google", "workloadIdentityProvider": POOL}
BY_ACCOUNT = {**BY_FEDERATION, "role": ACCOUNT}
BY_NODE = {"provider": "Google"}
BY_AZURE = {"provider": "Azure", "role": CLIENT, "tenantId": TENANT}


def token(audience: str) -> dict[str, str]:
    """Return the content of the volume with the token of the ServiceAccount for one audience."""
    return {token_file(audience): SERVICE_ACCOUNT_TOKEN}


@dataclass(frozen=True)
class Aws:
    """moto, and a registry with HTTP basic that takes what its ECR hands out."""

    services: Services
    moto: moto.Moto
    registry: str


@pytest.fixture(scope="module")
def aws(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    folder = tmp_path_factory.mktemp("aws")
    built = build.ensure(cache_directory({}))
    authority, port = pki.Authority(folder, "ca"), free_port()
    pair = authority.issue("registry", common_name="localhost", hosts=("localhost",))
    (folder / "htpasswd").write_text(pki.htpasswd_line("AWS", moto.PASSWORD))
    config = registry_config(
        port,
        folder / "storage",
        http={"tls": {"certificate": str(pair.cert), "key": str(pair.key)}},
        auth={"htpasswd": {"realm": "ecr", "path": str(folder / "htpasswd")}},
    )
    (folder / "registry.json").write_text(config)
    registry = f"localhost:{port}"
    with ExitStack() as stack:
        server = stack.enter_context(moto.serving(folder / "moto.log"))
        program = str(built.programs["registry"])
        stack.enter_context(running(program, "serve", str(folder / "registry.json"), log=folder / "registry.log"))
        wait(lambda: listens(port))
        found = replace(
            services,
            others=({"host": registry, "caBundle": Path(authority.pair.cert).read_text()},),
            identities={"aws": {"sts": server.url, "ecr": server.url, "registries": [registry], "region": "eu-west-1"}},
            socket=folder / "buildkitd.sock",
        )
        start_buildkitd(stack, str(built.programs["buildkitd"]), folder, found)
        yield Aws(found, server, registry)


def test_a_role_of_aws_pushes_pulls_and_caches(aws: Aws, pod: Pods) -> None:
    role = aws.moto.role("builds", "ecr:GetAuthorizationToken")
    app = pod({"identity": token(AWS)})
    app.services = aws.services
    image = f"{aws.registry}/{app.image}"
    app.spec["output"] = {"image": image, "identity": {"provider": "AWS", "role": role}}
    cache = f"{image}:cache-x"
    for _ in range(2):
        aws.moto.authorise_after(1)
        built = app.built(f"--cache-to={cache}", f"--cache-from={cache}")
    # The base image from there, too.
    app.spec["source"]["inline"]["files"]["Dockerfile"] = f"FROM {image}@{built.digest}\nCOPY Dockerfile /own\n"
    aws.moto.authorise_after(1)
    built = app.built(f"--cache-to={cache}", f"--cache-from={cache}")
    aws.moto.authorise_after(1)
    outcome = app.run("publish", "--tag=latest", built={"linux/amd64": built.digest})
    assert isinstance(outcome, Published), outcome


def test_a_role_without_the_right_is_told_and_final(aws: Aws, pod: Pods) -> None:
    role = aws.moto.role("reader", "s3:ListBucket")
    app = pod({"identity": token(AWS)})
    app.services = aws.services
    identity = {"provider": "AWS", "role": role}
    app.spec["output"] = {"image": f"{aws.registry}/{app.image}", "identity": identity}
    aws.moto.authorise_after(1)
    failure = app.failed(*BUILD)
    assert failure.reason is Reason.IDENTITY_DENIED
    assert not failure.reason.retryable
    assert f"output.identity (aws/{role}) was refused" in failure.message
    assert "not authorized to perform: ecr:GetAuthorizationToken" in failure.message
    assert SERVICE_ACCOUNT_TOKEN not in failure.message


def test_a_provider_that_is_away_is_tried_again(aws: Aws, pod: Pods) -> None:
    app = pod({"identity": token(AWS)})
    gone = {"aws": {**aws.services.identities["aws"], "sts": f"http://127.0.0.1:{free_port()}"}}
    app.services = replace(aws.services, identities=gone)
    identity = {"provider": "AWS", "role": f"arn:aws:iam::{moto.ACCOUNT}:role/builds"}
    app.spec["output"] = {"image": f"{aws.registry}/{app.image}", "identity": identity}
    failure = app.failed(*BUILD)
    assert failure.reason is Reason.IDENTITY_UNAVAILABLE
    assert failure.reason.retryable
    assert "127.0.0.1 cannot be reached" in failure.message


@dataclass(frozen=True)
class Clouds:
    """Google, Azure and their registry, behind a proxy that alone knows their names."""

    services: Services
    cloud: Cloud


@pytest.fixture(scope="module")
def clouds(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    folder = tmp_path_factory.mktemp("clouds")
    program = str(build.ensure(cache_directory({})).programs["buildkitd"])
    audiences = (GOOGLE, AZURE)
    cloud = Cloud(services.registry, lambda sent, to: sent == SERVICE_ACCOUNT_TOKEN and to in audiences, host=REGISTRY)
    with ExitStack() as stack:
        stack.enter_context(cloud.serving())
        proxy = Proxy({REGISTRY: cloud.address, "servers.test:80": cloud.address})
        stack.enter_context(proxy.serving())
        found = replace(
            services,
            others=({"host": REGISTRY, "plainHttp": True},),
            proxy={"http": proxy.url, "https": proxy.url},
            # The metadata server is asked through no proxy.
            identities=cloud.policy(SERVERS)
            | {"google": cloud.policy(SERVERS)["google"] | {"metadata": f"http://{cloud.address}"}},
            socket=folder / "buildkitd.sock",
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ProxyPolicy.model_validate(found.proxy).environment.items():
                patch.setenv(name, value)
            start_buildkitd(stack, program, folder, found)
            yield Clouds(found, cloud)


@pytest.fixture
def cloud(clouds: Clouds) -> Iterator[Cloud]:
    yield clouds.cloud
    clouds.cloud.seconds, clouds.cloud.fault = 3600, None
    clouds.cloud.asked.clear()


def app(clouds: Clouds, pod: Pods, identity: dict[str, Any], dockerfile: str = "FROM busybox:1.36\n") -> Pod:
    made = pod({"identity": token(GOOGLE) | token(AZURE)})
    made.services = clouds.services
    made.spec["source"] = {"inline": {"files": {"Dockerfile": dockerfile}}}
    made.spec["output"] = {"image": f"{REGISTRY}/{made.image}", "identity": identity}
    return made


@pytest.mark.parametrize(
    ("identity", "asked"),
    [
        (BY_FEDERATION, ["google sts"]),
        (BY_ACCOUNT, ["google sts", "google account"]),
        (BY_NODE, ["google metadata"]),
        (BY_AZURE, ["azure entra", "azure exchange"]),
    ],
    ids=["federation", "service account", "metadata server", "azure"],
)
def test_an_identity_pushes_pulls_caches_and_publishes(
    clouds: Clouds, cloud: Cloud, pod: Pods, identity: dict[str, Any], asked: list[str]
) -> None:
    made = app(clouds, pod, identity, f"FROM {REGISTRY}/library/busybox:1.36\nCOPY Dockerfile /own\n")
    cache = f"{REGISTRY}/{made.image}:cache-x"
    built = made.built(f"--cache-to={cache}", f"--cache-from={cache}")
    # Once for all of a step: push, base image and cache.
    assert cloud.asked == asked
    outcome = made.run("publish", "--tag=latest", built={"linux/amd64": built.digest})
    assert isinstance(outcome, Published), outcome
    assert clouds.services.client(made.image).resolve("latest").digest == outcome.digest
    assert clouds.services.client(made.image).resolve("cache-x").raw
    written = b"".join(file.read_bytes() for file in made.root.rglob("*") if file.is_file())
    assert not any(login.encode() in written for login in cloud.logins), "a login was written to a file"


def test_a_login_is_renewed_while_a_build_goes_on(
    clouds: Clouds, cloud: Cloud, pod: Pods, capfd: pytest.CaptureFixture[str]
) -> None:
    cloud.seconds = 3
    app(clouds, pod, BY_FEDERATION, "FROM busybox:1.36\nRUN date > /time; sleep 5\n").built()
    assert cloud.asked.count("google sts") >= 2
    expired = [password for password, until in cloud.logins.items() if until < time.time()]
    assert expired, "the first login was good for all of the build"
    assert "for 3 s (output.identity)" in capfd.readouterr().out


def test_a_step_that_waits_longer_than_its_login_publishes(clouds: Clouds, cloud: Cloud, pod: Pods) -> None:
    cloud.seconds = 2
    made = app(clouds, pod, BY_AZURE)
    built = made.built()
    outcome = made.run("publish", "--tag=latest", built={"linux/amd64": built.digest}, meanwhile=lambda: time.sleep(3))
    assert isinstance(outcome, Published), outcome


def test_an_artifact_and_a_destination_have_identities_of_their_own(clouds: Clouds, cloud: Cloud, pod: Pods) -> None:
    made = app(clouds, pod, BY_AZURE)
    built = made.built()
    made.run("publish", "--tag=source", built={"linux/amd64": built.digest})
    cloud.asked.clear()
    made.spec["source"] = {"oci": {"image": f"{REGISTRY}/{made.image}:source", "identity": BY_NODE}}
    made.spec["output"] = {
        "image": f"{clouds.services.registry}/{made.image}-x",
        "destinations": [{"image": f"{REGISTRY}/{made.image}-y", "identity": BY_FEDERATION}],
    }
    outcome = made.run("resolve")
    assert isinstance(outcome, Resolved), outcome
    assert cloud.asked == ["google metadata"]
    made.spec["source"] = {"inline": {"files": {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}}}
    built = made.built()
    published = made.run("publish", "--tag=latest", built={"linux/amd64": built.digest})
    assert isinstance(published, Published), published
    assert set(cloud.asked) == {"google metadata", "google sts"}
    assert clouds.services.client(f"{made.image}-y").resolve("latest").digest == published.digest


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({**BY_ACCOUNT, "role": "other@project.iam.gserviceaccount.com"}, "Permission 'iam.serviceAccounts.getAccess"),
        ({**BY_AZURE, "role": TENANT}, "invalid_request: AADSTS900144"),
    ],
)
def test_what_a_provider_refuses_is_told_in_its_words(
    clouds: Clouds, pod: Pods, identity: dict[str, Any], words: str
) -> None:
    failure = app(clouds, pod, identity).failed(*BUILD)
    assert failure.reason is Reason.IDENTITY_DENIED
    assert words in failure.message
    assert "scheduling.serviceAccountName" in failure.message


def test_an_outage_of_a_provider_is_tried_again(clouds: Clouds, cloud: Cloud, pod: Pods) -> None:
    cloud.fault = 503, {"error": {"message": "The service is currently unavailable."}}
    failure = app(clouds, pod, BY_FEDERATION).failed(*BUILD)
    assert failure.reason is Reason.IDENTITY_UNAVAILABLE
    assert "The service is currently unavailable." in failure.message


def test_an_outage_while_a_build_goes_on_is_tried_again_too(clouds: Clouds, cloud: Cloud, pod: Pods) -> None:
    made = app(clouds, pod, BY_FEDERATION, "FROM busybox:1.36\nRUN sleep 4\n")
    cloud.seconds = 2
    away = threading.Timer(2, lambda: setattr(cloud, "fault", (503, {"error": {"message": "unavailable"}})))
    away.start()
    failure = made.failed(*BUILD)
    away.join()
    assert failure.reason.retryable, failure.message
    assert "output.identity" in failure.message


def test_a_pod_without_the_token_says_so(clouds: Clouds, pod: Pods) -> None:
    made = app(clouds, pod, BY_AZURE)
    made.secrets = {}
    failure = made.failed(*BUILD)
    assert failure.reason is Reason.IDENTITY_DENIED
    assert (
        "no token of its ServiceAccount for api://AzureADTokenExchange, which output.identity needs" in failure.message
    )


def test_the_credential_helper_has_the_login_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(Credentials("AWS", f"password-{number}") for number in range(1000))
    monkeypatch.setattr(logins, "_RENEWAL", 0.01)

    def asked(env: dict[str, str]) -> str:
        command = ["docker-credential-multiarchbuild", "get"]
        return subprocess.run(
            command, input="ecr.test:5000", env=env, check=True, capture_output=True, text=True
        ).stdout

    with logins._helper(lambda _: next(given), [], ["ecr.test:5000"], tmp_path) as env:
        first = asked(env)
        assert '"Username": "AWS"' in first
        wait(lambda: asked(env) != first, seconds=10)
