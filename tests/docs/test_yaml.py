"""Every YAML that README, docs and examples show is understood by what it is meant for.

A block is a manifest unless the word after `yaml` on its fence says otherwise: `spec` is part of a build's spec,
`status` part of its status, `policy` an operator policy, `values` are the chart's, `kyverno` is part of a policy of
Kyverno.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.install import CHART
from hack.target import CommandError, Target
from multiarchbuild.api.base import KNOWN
from multiarchbuild.api.status import Status
from multiarchbuild.plan.policy import Policy
from tests.support import authorities
from tests.support.go_modules import crds, pinned
from tests.support.markdown import ROOT, Block, blocks, pages

pytestmark = [pytest.mark.api, pytest.mark.xdist_group("docs")]

MINIMAL: dict[str, Any] = {
    "platforms": ["linux/amd64", "linux/arm64"],
    "source": {"git": {"url": "https://git.example.com/team-a/app.git"}},
    "output": {"image": "registry.example.com/team-a/app"},
}
BLOCKS = [block for page in pages() for block in blocks(page) if block.language in {"yaml", "yml"}]
FILES = sorted(file for file in (ROOT / "examples").rglob("*.yaml"))


def _manifest(target: Target, namespace: str, text: str) -> None:
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    assert documents, "there is nothing in it"
    for document in documents:
        assert {"apiVersion", "kind"} <= set(document), f"no manifest: write one of {[*CHECKS]} after `yaml`"
        # Namespaces that readers have are not here; what depends on it is not checked by a dry run.
        if "namespace" in document.get("metadata", {}):
            document["metadata"]["namespace"] = namespace
        arguments = ["apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-"]
        target.kubectl(*arguments, stdin=json.dumps(document))


def _spec(target: Target, namespace: str, text: str) -> None:
    spec = {**MINIMAL, **yaml.safe_load(text)}
    spec["output"] = {**MINIMAL["output"], **spec["output"]}
    kind = {"apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild", "metadata": {"name": "app"}}
    _manifest(target, namespace, json.dumps({**kind, "spec": spec}))


def _status(_target: Target, _namespace: str, text: str) -> None:
    document = yaml.safe_load(text)
    schema = Status.model_json_schema(by_alias=True)
    assert list(_unknown(schema, document.get("status", document), "status", schema["$defs"])) == []


def _unknown(schema: dict[str, Any], value: Any, path: str, definitions: dict[str, Any]) -> Iterator[str]:
    """Yield what `value` says that no status of this version says; what it leaves out is no mistake."""
    for alternative in schema.get("anyOf", ()):
        schema = alternative if alternative.get("type") != "null" else schema
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].removeprefix("#/$defs/")], **schema}
    if isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from _unknown(schema["properties"][name], inner, f"{path}.{name}", definitions)
            else:
                yield f"{path}.{name}"
    elif isinstance(value, list):
        for inner in value:
            yield from _unknown(schema["items"], inner, f"{path}[]", definitions)
    elif value not in schema.get(KNOWN, [value]):
        yield f"{path}: {value}"


def _policy(_target: Target, _namespace: str, text: str) -> None:
    Policy.model_validate(yaml.safe_load(text))


def _values(target: Target, _namespace: str, text: str) -> None:
    assert target.run("helm", "template", "release", str(CHART), "--values", "-", stdin=text)


def _kyverno(_target: Target, _namespace: str, text: str) -> None:
    """Kyverno itself is asked in tests/steps/test_verifiers.py and tests/steps/test_keyless.py."""
    found = yaml.safe_load(text)
    assert found["attestors"]
    assert list(_unknown(_schema_of_kyverno(found), found, "kyverno", {})) == []


def _schema_of_kyverno(found: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a rule of `verifyImages` in a ClusterPolicy, or of the spec of an ImageValidatingPolicy."""
    rule = "imageReferences" in found
    name = "kyverno/kyverno.io_clusterpolicies" if rule else "policies.kyverno.io/*.io_imagevalidatingpolicies"
    module = "github.com/kyverno/kyverno"
    (file,) = crds(module, pinned("sigcheck", module), f"config/crds/{name}.yaml")
    versions = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["versions"]
    (stored,) = (each for each in versions if each["storage"])
    spec: dict[str, Any] = stored["schema"]["openAPIV3Schema"]["properties"]["spec"]
    if not rule:
        return spec
    images: dict[str, Any] = spec["properties"]["rules"]["items"]["properties"]["verifyImages"]["items"]
    return images


def _fulcio(_target: Target, _namespace: str, text: str) -> None:
    """Fulcio itself is started with it in tests/steps/test_keyless.py and tests/e2e/test_keyless.py."""
    found = yaml.safe_load(text)
    (issuer,) = found["oidc-issuers"]
    assert found == authorities.configuration(issuer)


CHECKS: dict[str, Callable[[Target, str, str], None]] = {
    "": _manifest,
    "spec": _spec,
    "status": _status,
    "policy": _policy,
    "values": _values,
    "kyverno": _kyverno,
    "fulcio": _fulcio,
}


@pytest.fixture(scope="module")
def anywhere(target: Target, kinds: None) -> str:
    """A namespace for dry runs; nothing is ever in it."""
    del kinds
    name = "mab-test-docs"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    target.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    return name


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks(target: Target, anywhere: str, block: Block) -> None:
    CHECKS[block.label](target, anywhere, block.text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_examples(target: Target, anywhere: str, file: Path) -> None:
    # Flux fills it in.
    text = file.read_text(encoding="utf-8").replace("${registry}", "registry.example.com/team-a")
    _manifest(target, anywhere, text)


def test_a_wrong_block_is_refused(target: Target, anywhere: str) -> None:
    with pytest.raises(AssertionError, match=r"status\.run\.result: Great"):
        _status(target, anywhere, "run: {result: Great}")
    for text in ("imageReferences: []", "matchImageReferences: []"):
        with pytest.raises(AssertionError, match=r"kyverno\.attestors\[\]\.keyles"):
            _kyverno(target, anywhere, f"{text}\nattestors: [{{keyles: true}}]")
    with pytest.raises(CommandError, match=r'unknown field "spec\.retry"'):
        _spec(target, anywhere, "retry: 3")
