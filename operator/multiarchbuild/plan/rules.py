"""What the policy forbids a build. A chain of checks, each of which returns the rule that is broken and the remedy."""

from collections.abc import Callable, Iterator

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.scheduling import Resources, Strategy

from .patterns import Pattern
from .policy import Policy, exceeds

WHO = "Who runs the operator can change its policy"
"""Whom to ask."""


def refusal(build: MultiArchBuild, policy: Policy) -> str:
    """Return what the policy has against a run of `build`, or nothing."""
    broken = [message for check in _CHECKS for message in check(build, policy)]
    return f"{'; '.join(broken)}. {WHO}." if broken else ""


def _outputs(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    if not policy.outputs:
        return
    namespace, spec = build.metadata.namespace, build.spec
    allowed = [
        pattern
        for rule in policy.outputs
        if any(Pattern(text).matches(namespace) for text in rule.namespaces)
        for pattern in rule.registries
    ]
    named = {"output.image": spec.output.image, "cache.repository": spec.cache.repository}
    for field, repository in named.items():
        if repository and not any(Pattern(text).matches(repository, namespace=namespace) for text in allowed):
            where = ", ".join(allowed) or "nowhere"
            yield f"{field} is {repository}, but builds of namespace {namespace} may push to {where} (policy: outputs)"


def _emulation(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    scheduling = build.spec.scheduling
    strategies = {"scheduling.strategy": scheduling.strategy} | {
        f"scheduling.overrides[{entry.platform}].strategy": entry.strategy for entry in scheduling.overrides
    }
    rule = policy.emulation.refusal(build.metadata.namespace)
    for field, strategy in strategies.items():
        if strategy is Strategy.EMULATED and rule:
            yield f"{field} is Emulated, but QEMU is not allowed here (policy: {rule}): use Native or Cross"


def _resources(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    scheduling = build.spec.scheduling
    asked = {"scheduling.resources": scheduling.resources} | {
        f"scheduling.overrides[{entry.platform}].resources": entry.resources or Resources()
        for entry in scheduling.overrides
    }
    for field, resources in asked.items():
        for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)):
            for name, amount in amounts.items():
                most = policy.max_resources.get(name)
                if most is not None and exceeds(amount, most):
                    yield f"{field}.{kind}.{name} is {amount}, but at most {most} is allowed (policy: maxResources)"


def _timeout(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    own, longest = build.spec.timeout, policy.max_timeout
    if own and longest and parse_duration(own) > parse_duration(longest):
        yield f"timeout is {own}, but at most {longest} is allowed (policy: maxTimeout)"


_CHECKS: tuple[Callable[[MultiArchBuild, Policy], Iterator[str]], ...] = (_outputs, _emulation, _resources, _timeout)
