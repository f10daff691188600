"""A generator of SBOMs, small enough for tests.

Source: https://github.com/moby/buildkit/blob/v0.32.2/docs/attestations/sbom-protocol.md
"""

from typing import Any

from hack.target import Target

SPDX = "https://spdx.dev/Document"

_SCAN = """\
set -e
spdx=https://spdx.dev/Document
statement='{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "'$spdx'", "predicate": %s}'
document='{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "packages": [{"name": "app", "versionInfo": "%s"}]}'
printf "$statement" "$(printf "$document" "$(cat "$BUILDKIT_SCAN_SOURCE/release")")" \\
    > "$BUILDKIT_SCAN_DESTINATION/$(basename "$BUILDKIT_SCAN_SOURCE").spdx.json"
"""

GENERATOR = {
    "Dockerfile": 'FROM busybox:1.36\nCOPY scan /scan\nENTRYPOINT ["/bin/sh", "/scan"]\n',
    "scan": _SCAN,
}
"""Files of its source; it lists one package, `app` in the version that the image's file /release names."""


def image(target: Target) -> str:
    """Return the generator that the operator under test is told to use; who needs it builds it."""
    return f"{target.facts.registry}/sbom-generator:1"


def packages(statement: dict[str, Any]) -> dict[str, str]:
    """Return the versions in an SBOM by package."""
    return {entry["name"]: entry["versionInfo"] for entry in statement["predicate"]["packages"]}
