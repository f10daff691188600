import pytest
from pydantic import ValidationError

from multiarchbuild.plan.policy import Policy

PROXY = "http://proxy.example.com:3128"


def test_without_a_proxy_there_are_no_variables() -> None:
    assert Policy().proxy.environment == {}
    assert Policy.model_validate({"proxy": {"noProxy": [".example.com"]}}).proxy.environment == {}


def test_the_cluster_itself_is_reached_directly() -> None:
    proxy = Policy.model_validate({"proxy": {"https": f"{PROXY}/", "noProxy": [".svc", "10.0.0.0/8"]}}).proxy
    excepted = "localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8"
    assert proxy.variables == {"HTTPS_PROXY": PROXY, "NO_PROXY": excepted}
    assert proxy.environment == {**proxy.variables, "https_proxy": PROXY, "no_proxy": excepted}


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ({"http": "http://user:secret@proxy.example.com:3128"}, "must not hold a user or password"),
        ({"https": "proxy.example.com:3128"}, "must be the URL of an HTTP proxy"),
        ({"https": "socks5://proxy.example.com:1080"}, "must be the URL of an HTTP proxy"),
        ({"https": "http://proxy.example.com:3128/path"}, "must be the URL of an HTTP proxy"),
        ({"https": PROXY, "noProxy": ["a.example.com,b.example.com"]}, "write one entry for each"),
        ({"https": PROXY, "noProxy": [""]}, "is not a host, domain or network"),
    ],
)
def test_what_is_not_a_proxy_is_refused(proxy: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Policy.model_validate({"proxy": proxy})
    assert said in str(error.value)
