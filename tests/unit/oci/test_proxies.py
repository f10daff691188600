import pytest

from multiarchbuild.oci.proxies import Proxies

PROXY = "http://proxy.test:3128"

ROWS = [
    ("https://registry.test/v2/", "", True),
    ("http://registry.test/v2/", "", False),
    ("https://localhost:5000/", "", False),
    ("https://127.0.0.1:5000/", "", False),
    ("https://[::1]/", "", False),
    ("https://registry.test/", "*", False),
    ("https://registry.test/", "registry.test", False),
    ("https://Registry.Test/", "REGISTRY.test", False),
    ("https://a.registry.test/", "registry.test", False),
    ("https://aregistry.test/", "registry.test", True),
    ("https://registry.test/", ".registry.test", True),
    ("https://a.registry.test/", ".registry.test", False),
    ("https://a.registry.test/", "*.registry.test", False),
    ("https://registry.test/", "*.registry.test", True),
    ("https://registry.team.svc:5000/", "localhost, .svc,.cluster.local", False),
    ("https://registry.test:5000/", "registry.test:5000", False),
    ("https://registry.test/", "registry.test:443", False),
    ("https://registry.test/", "registry.test:5000", True),
    ("https://10.1.2.3/", "10.0.0.0/8", False),
    ("https://11.1.2.3/", "10.0.0.0/8", True),
    ("https://10.1.2.3/", "10.1.2.3", False),
    ("https://10.1.2.3:5000/", "10.1.2.3:5000", False),
    ("https://10.1.2.3/", "10.1.2.3:5000", True),
    ("https://[fd00::1]/", "fd00::/8", False),
    ("https://[fd00::1]:5000/", "[fd00::1]:5000", False),
    ("https://[fd00::1]/", "[fd00::1]:5000", True),
    ("https://10.1.2.3/", "example.com", True),
    ("https://registry.test:x/", "", False),
]


@pytest.mark.parametrize(("url", "exceptions", "proxied"), ROWS)
def test_which_way_a_request_goes(url: str, exceptions: str, *, proxied: bool) -> None:
    proxies = Proxies.read({"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions})
    assert proxies.of(url) == (PROXY if proxied else None)


def test_in_lower_case_they_go_first_and_a_scheme_may_be_missing() -> None:
    proxies = Proxies.read(
        {"https_proxy": "a.test:1", "HTTPS_PROXY": "http://b.test:2", "http_proxy": "https://c.test"}
    )
    assert proxies.of("https://registry.test/") == "http://a.test:1"
    assert proxies.of("http://registry.test/") == "https://c.test"


def test_without_variables_everything_is_asked_directly() -> None:
    assert Proxies.read({"HTTPS_PROXY": ""}).of("https://registry.test/") is None
