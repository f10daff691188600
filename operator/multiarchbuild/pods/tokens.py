"""Tells a pod where it sends the tokens of its ServiceAccount."""

from typing import Final

from multiarchbuild.api.keyless import Keyless
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.token_services import TokenServices
from multiarchbuild.plan.logins import logins
from multiarchbuild.plan.policy import Policy

_PART: Final = 16 * 1024
"""Characters of one argument: Linux takes 128 KiB (MAX_ARG_STRLEN, execve(2)), and a CA bundle may be longer."""


def keyless(build: MultiArchBuild, policy: Policy) -> Keyless | None:
    """Return who certifies the signatures of a build that asks for it."""
    signing = build.spec.output.signing
    return policy.rules_for(build.metadata.namespace).signing.keyless if signing and signing.keyless else None


def arguments(build: MultiArchBuild, policy: Policy, *, sign: bool = False) -> list[str]:
    """Return what a step is told that has tokens; `sign` if one may be for signatures."""
    certifies = keyless(build, policy) if sign else None
    if certifies is None and not any(logins(build.spec)):
        return []
    told = TokenServices(identities=policy.identities, keyless=certifies, ca_bundle=policy.ca_bundle)
    text = told.model_dump_json(by_alias=True, exclude_defaults=True)
    return [f"--services={text[start : start + _PART]}" for start in range(0, len(text), _PART)]
