"""The policy file: what is read, and one line that names the field for each mistake."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from multiarchbuild.controller.settings import PolicyError, load_policy
from multiarchbuild.plan.policy import Isolation, Policy
from tests.cluster.pki import Authority


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _signing(fulcio: str) -> str:
    """Return a policy whose second tenant has this Fulcio."""
    return f"tenants: [{{namespaces: [a]}}, {{namespaces: ['*'], signing: {{keyless: {{fulcio: {fulcio}}}}}}}]"


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path) -> None:
    assert load_policy(None) == Policy()
    assert load_policy(write(tmp_path, "# nothing\n")) == Policy()


def test_names_are_camel_case_as_in_kubernetes(tmp_path: Path) -> None:
    policy = load_policy(
        write(
            tmp_path,
            """
            isolation: Privileged
            images: {pullPolicy: Always}
            registries: [{host: "registry:5000", plainHttp: true, mirrors: [mirror]}]
            """,
        )
    )
    assert policy.isolation is Isolation.PRIVILEGED
    assert policy.images.pull_policy == "Always"
    assert policy.registries[0].plain_http
    assert policy.registries[0].mirrors == ("mirror",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("isolatoin: Rootless", "isolatoin: unknown field, did you mean isolation?"),
        ("images: {stepp: x}", "images.stepp: unknown field, did you mean step?"),
        ("registries: [{host: a}, {host: b, plainHtpp: true}]", "registries[1].plainHtpp: unknown field"),
        (
            "images: {zzz: x}",
            "images.zzz: unknown field: use one of step, buildkit, frontend, sbom, pullPolicy",
        ),
        ("isolation: Docker", "isolation: Input should be 'Rootless', 'UserNamespace' or 'Privileged', not 'Docker'"),
        ("images: {step: ''}", "images.step: String should have at least 1 character, not ''"),
        ("emulation: {allowed: perhaps}", "emulation.allowed: Input should be a valid boolean"),
        ("registries: [{plainHttp: true}]", "registries[0].host: Field required"),
        ("isolation: Rootless\nisolation: Privileged", "isolation is set twice"),
        ("caBundle: PEM", "caBundle: has no readable certificate"),
        ("registries: [{host: a}, {host: b, caBundle: PEM}]", "registries[1].caBundle: has no readable certificate"),
        (
            _signing("'https://f.test', timestampAuthority: 'https://t.test', caBundle: PEM"),
            "tenants[1].signing.keyless.caBundle: has no readable certificate",
        ),
        (
            _signing("'https://f.test/{region}', timestampAuthority: 'https://t.test'"),
            "tenants[1].signing.keyless.fulcio: String should match pattern",
        ),
        (
            _signing("'https://f.test', timestampAuthority: 'https://{region}.test'"),
            "tenants[1].signing.keyless.timestampAuthority: String should match pattern",
        ),
        (
            _signing("'http://f.test', timestampAuthority: 'http://t.test'"),
            "tenants[1].signing.keyless: fulcio is http://f.test, where everybody on the way can read the token",
        ),
        ("registries: [{host: https://a}]", "registries[0].host: String should match pattern"),
        ("registries: [{host: a}, {host: a}]", "registries: a is listed twice: merge the entries"),
        ("images: {pullPolicy: Sometimes}", "images.pullPolicy: Input should be 'Always', 'IfNotPresent' or 'Never'"),
        ("emulation: {namespaces: []}", "emulation.namespaces: Tuple should have at least 1 item"),
        ("emulation: {namespaces: ['team[ab]']}", "emulation.namespaces[0]: a pattern consists of"),
        ("outputs: [{namespaces: ['*']}]", "outputs[0].registries: Field required"),
        ("outputs: [{namespaces: ['*'], registries: ['r/{name}']}]", "outputs[0].registries[0]: a pattern consists"),
        ("outputs: [{namespaces: ['*'], registrys: ['r/*']}]", "outputs[0].registrys: unknown field"),
        ("cache: {repository: 'r.test/{team}'}", "cache.repository: unknown placeholder {team}: use {namespace}"),
        ("cache: {repository: 'R.test/cache'}", "cache.repository: must be registry/repository in lower case"),
        ("cache: {repository: 'cache/{name}'}", "cache.repository: must be registry/repository in lower case"),
        ("maxResources: {memory: much}", "maxResources.memory: is not a quantity: write 500m, 2 or 4Gi, not 'much'"),
        ("defaultResources: {limits: {cpu: few}}", "defaultResources: limits.cpu is few, which is not a quantity"),
        (
            "defaultResources: {limits: {memory: 8Gi}}\nmaxResources: {memory: 4Gi}",
            "defaultResources: limits.memory is more than maxResources.memory (4Gi): no build could use it",
        ),
        ("maxTimeout: 2 hours", "maxTimeout: '2 hours' is not a duration: write hours, minutes and seconds"),
        ("defaultTimeout: 0s", "defaultTimeout: must be longer than 0s: write 90s, 30m or 1h30m"),
        ("defaultTimeout: 2h\nmaxTimeout: 90m", "defaultTimeout: is longer than maxTimeout (90m)"),
        ("concurrency: {cluster: 0}", "concurrency.cluster: Input should be greater than or equal to 1, not 0"),
        ("concurrency: {namespaces: 2}", "concurrency.namespaces: unknown field, did you mean namespace?"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "is not valid YAML"),
        ("a: !!python/object:os.system x", "is not valid YAML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_certificates_are_read(tmp_path: Path) -> None:
    pem = Authority(tmp_path, "test").pair.cert.read_text()
    keyless = {"fulcio": "https://f.test", "timestampAuthority": "http://t.test", "caBundle": pem}
    tenant = {"namespaces": ["*"], "signing": {"keyless": keyless}}
    policy = {"caBundle": pem, "registries": [{"host": "a.test", "caBundle": pem}], "tenants": [tenant]}
    loaded = load_policy(write(tmp_path, yaml.safe_dump(policy)))
    signing = loaded.tenants[0].signing.keyless
    assert signing
    assert loaded.registries[0].ca_bundle == signing.ca_bundle == loaded.ca_bundle


def test_a_fulcio_without_tls_has_to_be_asked_for(tmp_path: Path) -> None:
    said = _signing("'http://f.test', timestampAuthority: 'http://t.test', plainHttp: true")
    keyless = load_policy(write(tmp_path, said)).tenants[1].signing.keyless
    assert keyless
    assert keyless.plain_http


def test_everything_can_be_said(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, example("policy.md")))
    assert policy.timeout(None) == timedelta(minutes=30)
    assert policy.concurrency.namespace == 5
    assert {name for name in Policy.model_fields if getattr(policy, name) == getattr(Policy(), name)} == {
        "ca_bundle",
        "injection",
        "isolation",
    }


def example(page: str) -> str:
    """Return the first block of YAML of a page of the documentation."""
    text = (Path(__file__).parents[3] / "docs" / page).read_text(encoding="utf-8")
    return text.partition("```yaml policy\n")[2].partition("```")[0]


def test_each_mistake_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(write(tmp_path, "isolation: x\nimages: {step: 1}\nfoo: bar\n"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load_policy(tmp_path / "none.yaml")


def test_the_password_of_a_proxy_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path, 'proxy: {https: "http://ci:hunter2@proxy.example.com:3128"}')
    with pytest.raises(PolicyError) as error:
        load_policy(path)
    assert "proxy.https must not hold a user or password" in str(error.value).replace(": ", " ")
    assert "hunter2" not in str(error.value)
