"""What the publish step signs, before the verifiers of others: their own code, and a registry on loopback."""

from collections.abc import Iterator

import pytest

from multiarchbuild.api.results import Published
from tests.steps.conftest import Pods, Services
from tests.steps.servers import Answer, FaultyRegistry
from tests.steps.test_publish import build_two, inline, published, signed
from tests.support import judges
from tests.support.judges import VERIFIERS
from tests.support.signing import key_pair


def digests(result: Published) -> list[str]:
    return [result.digest, *(platform.digest for platform in result.platforms)]


def test_each_verifier_accepts_index_and_images_by_this_key_and_no_other(pod: Pods, services: Services) -> None:
    pair, other = key_pair(), key_pair()
    app = signed(pod, **pair.secret())
    result = published(app.run("publish", "--tag=latest", built=build_two(app)))
    image = f"{services.registry}/{app.image}"
    for judge, predicates in VERIFIERS.items():
        for digest in digests(result):
            said = judges.signed(f"{image}@{digest}", pair.public, judge)
            assert (judge, digest, said["error"]) == (judge, digest, "")
            assert set(said["predicates"]) == predicates, judge
        assert judges.signed(f"{image}@{result.digest}", other.public, judge)["error"], f"{judge} takes any key"


def test_no_verifier_accepts_an_image_that_is_not_signed(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    result = published(app.run("publish", built=build_two(app)))
    ref = f"{services.registry}/{app.image}@{result.digest}"
    for judge in VERIFIERS:
        assert judges.signed(ref, key_pair().public, judge)["error"], f"{judge} needs no signature"


@pytest.fixture
def without_referrers(services: Services) -> Iterator[str]:
    """Host of a registry that has lost what refers to images: the lists of bundles."""

    def gone(_method: str, path: str) -> Answer | None:
        lists = "/referrers/" in path or ("/manifests/sha256-" in path and not path.endswith(".sig"))
        return (
            (404, {"Content-Type": "application/json"}, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            if lists
            else None
        )

    registry = FaultyRegistry(services.registry, gone)
    with registry.serving():
        yield registry.host


@pytest.mark.parametrize("judge", ["flux", "bundle", "kyverno-bundle"])
def test_where_no_bundle_is_left_flux_takes_the_signature(judge: str, pod: Pods, without_referrers: str) -> None:
    pair, other = key_pair(), key_pair()
    app = signed(pod, **pair.secret())
    result = published(app.run("publish", "--tag=latest", built=build_two(app)))
    ref = f"{without_referrers}/{app.image}@{result.digest}"
    assert bool(judges.signed(ref, pair.public, judge)["error"]) == (judge != "flux")
    assert judges.signed(ref, other.public, judge)["error"]
