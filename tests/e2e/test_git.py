"""Sources in git: what a ref means is found out once, and all platforms build that commit."""

import pytest

from tests.support.git import PASSWORD, TOKEN, GitServer, Repository
from tests.support.tenant import AMD64, BOTH, Status, Tenant, platform

pytestmark = pytest.mark.e2e

DOCKERFILE = "FROM busybox:1.36\nCOPY version /version\n"


@pytest.fixture
def repository(git_server: GitServer, tenant: Tenant) -> Repository:
    return git_server.repository(f"{tenant.namespace}.git")


def versions(tenant: Tenant, status: Status) -> dict[str, str]:
    """Return the content of /version by platform."""
    return {
        image["platform"]: tenant.images.file(f"{tenant.image()}@{image['digest']}", "/version")
        for image in status["image"]["platforms"]
    }


def test_a_branch_that_moves_while_the_platforms_build(tenant: Tenant, repository: Repository) -> None:
    first = repository.commit({"Dockerfile": DOCKERFILE, "version": "first"})
    # The branch moves as soon as somebody has fetched it: before any platform has.
    second = repository.commit({"Dockerfile": DOCKERFILE, "version": "second"}, visible=False)
    build = tenant.build(
        source={"git": {"url": repository.url, "ref": "main"}}, output={"tags": ["{ref}-{shortCommit}", "latest"]}
    )
    status = build.succeeded()
    assert status["run"]["source"]["commit"] == first
    assert status["run"]["source"]["ref"] == "main"
    assert versions(tenant, status) == dict.fromkeys(BOTH, "first")
    assert status["image"]["tags"] == [f"main-{first[:7]}", "latest"]
    assert build.columns("-o", "wide")["COMMIT"] == first
    build.rebuild()
    status = build.succeeded(after=status["run"]["id"])
    assert status["run"]["source"]["commit"] == second
    assert versions(tenant, status) == dict.fromkeys(BOTH, "second")
    assert [entry["commit"] for entry in status["history"]] == [second, first]
    published = [event["note"] for event in build.events(Succeeded=2) if event["reason"] == "Succeeded"]
    assert [note.rpartition(", of ")[2] for note in published] == [f"main at {first}", f"main at {second}"]


def test_a_tag_in_a_private_repository_and_a_folder_of_it(tenant: Tenant, repository: Repository) -> None:
    tagged = repository.commit({"app/Dockerfile": DOCKERFILE, "app/version": "tagged", "version": "not this one"})
    repository.tag("v1.0.0", tagged)
    repository.commit({"app/Dockerfile": DOCKERFILE, "app/version": "later"})
    tenant.secret("reader", "kubernetes.io/basic-auth", username="reader", password=PASSWORD)
    git = {
        "url": repository.private_url,
        "ref": "v1.0.0",
        "subdirectory": "app",
        "secretRef": {"name": "reader"},
    }
    status = tenant.build(platforms=[AMD64], source={"git": git}).succeeded()
    assert status["run"]["source"]["commit"] == tagged, "the commit, not the object of the tag"
    assert versions(tenant, status) == {AMD64: "tagged"}
    assert status["run"]["source"]["author"] == "Tester <tester@example.com>"


def test_a_commit_needs_no_resolving_and_a_token_will_do(tenant: Tenant, repository: Repository) -> None:
    wanted = repository.commit({"Dockerfile": DOCKERFILE, "version": "wanted"})
    repository.commit({"Dockerfile": DOCKERFILE, "version": "later"})
    tenant.secret("reader", token=TOKEN)
    git = {"url": repository.private_url, "ref": wanted, "secretRef": {"name": "reader"}}
    build = tenant.build(platforms=[AMD64], source={"git": git})
    status = build.succeeded()
    assert "resolve" not in status["run"]
    assert versions(tenant, status) == {AMD64: "wanted"}
    roles = sorted(pod["metadata"]["labels"]["multiarch.build/role"] for pod in build.pods())
    assert roles == ["build", "publish"]
    assert TOKEN not in str(build.get())


def test_a_bearer_token_as_flux_knows_it(tenant: Tenant, repository: Repository) -> None:
    commit = repository.commit({"Dockerfile": DOCKERFILE, "version": "private"})
    tenant.secret("reader", bearerToken=TOKEN)
    git = {"url": repository.bearer_url, "ref": "main", "secretRef": {"name": "reader"}}
    build = tenant.build(platforms=[AMD64], source={"git": git})
    status = build.succeeded()
    assert status["run"]["source"]["commit"] == commit
    assert versions(tenant, status) == {AMD64: "private"}
    assert TOKEN not in tenant.story()


def test_a_submodule_of_the_same_server(tenant: Tenant, git_server: GitServer, repository: Repository) -> None:
    library = git_server.repository(f"{tenant.namespace}-library.git")
    pinned = library.commit({"version": "of the submodule"})
    library.commit({"version": "moved on"})
    modules = f'[submodule "lib"]\n\tpath = lib\n\turl = ../{tenant.namespace}-library.git\n'
    dockerfile = "FROM busybox:1.36\nCOPY lib/version /version\n"
    repository.commit({"Dockerfile": dockerfile, ".gitmodules": modules}, submodules={"lib": pinned})
    status = tenant.build(platforms=[AMD64], source={"git": {"url": repository.url}}).succeeded()
    assert versions(tenant, status) == {AMD64: "of the submodule"}
    assert platform(status, AMD64)["phase"] == "Succeeded"
