"""Which way leads to the API server."""

import pytest
from kubernetes.aio.client import Configuration

from multiarchbuild.controller.kube import _proxy


@pytest.mark.parametrize(
    ("kubeconfig", "excepted", "server", "expected"),
    [
        (None, "", "https://10.96.0.1:443", "http://proxy.example.com:3128"),
        (None, "10.0.0.0/8", "https://10.96.0.1:443", None),
        (None, "10.0.0.0/8,.svc", "https://kubernetes.default.svc", None),
        ("http://own.example.com", "10.0.0.0/8", "https://10.96.0.1:443", "http://own.example.com"),
    ],
)
def test_networks_in_no_proxy_count(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: str | None, excepted: str, server: str, expected: str | None
) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", excepted)
    configuration = Configuration(host=server)
    configuration.proxy = kubeconfig
    assert _proxy(configuration) == expected
