import pytest

from multiarchbuild.oci.names import Repository


@pytest.mark.parametrize(
    ("name", "registry", "path", "api_host"),
    [
        ("registry.example.com/team/app", "registry.example.com", "team/app", "registry.example.com"),
        ("registry.test:5000/app", "registry.test:5000", "app", "registry.test:5000"),
        ("localhost/app", "localhost", "app", "localhost"),
        ("docker.io/team/app", "docker.io", "team/app", "registry-1.docker.io"),
        ("docker.io/node", "docker.io", "library/node", "registry-1.docker.io"),
        ("index.docker.io/team/app", "docker.io", "team/app", "registry-1.docker.io"),
        ("team/app", "docker.io", "team/app", "registry-1.docker.io"),
        ("registry.test:5000/app:cache-main", "registry.test:5000", "app", "registry.test:5000"),
        ("ghcr.io/team/app:tag@sha256:00", "ghcr.io", "team/app", "ghcr.io"),
    ],
)
def test_names_mean_what_docker_means_by_them(name: str, registry: str, path: str, api_host: str) -> None:
    repository = Repository.parse(name)
    assert (repository.registry, repository.path, repository.api_host) == (registry, path, api_host)
