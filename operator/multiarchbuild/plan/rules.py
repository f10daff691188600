"""What the policy forbids a build. A chain of checks, each of which returns the rule that is broken and the remedy."""

from collections.abc import Callable, Iterator, Sequence

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.scheduling import Affinity, Override, Resources, Scheduling, Strategy, Toleration

from .logins import logins
from .patterns import Pattern
from .policy import Policy, exceeds
from .quantities import quantity
from .tenants import NATIVE, SYSTEM_CLASSES, Tenant, named

WHO = "Ask an administrator to change the operator's policy"
"""Whom to ask."""


def refusal(build: MultiArchBuild, policy: Policy) -> str:
    """Return what the policy has against a run of `build`, or nothing."""
    return _broken(build, policy, (*_RUN_CHECKS, *_POD_CHECKS))


def pod_refusal(build: MultiArchBuild, policy: Policy) -> str:
    """Return what the policy has against any pod of `build`, or nothing.

    It is asked for every pod, also in a run that started under another policy, and for a look at a polled source.
    """
    return _broken(build, policy, _POD_CHECKS)


_Check = Callable[[MultiArchBuild, Policy], Iterator[str]]


def _broken(build: MultiArchBuild, policy: Policy, checks: Sequence[_Check]) -> str:
    broken = [message for check in checks for message in check(build, policy)]
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
    named = {"output.image": spec.output.image, "cache.repository": spec.cache.repository} | {
        f"output.destinations[{number}].image": each.image for number, each in enumerate(spec.output.destinations)
    }
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
    scheduling, bounds = build.spec.scheduling, policy.most(build.metadata.namespace)
    asked = {"scheduling.resources": scheduling.resources} | {
        f"{field}.resources": entry.resources or Resources() for field, entry in _overrides(scheduling)
    }
    for field, resources in asked.items():
        for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)):
            for name, amount in amounts.items():
                most = bounds.get(name)
                if most is None and name not in NATIVE:
                    yield (
                        f"{field}.{kind} has {name}, but only cpu, memory, ephemeral-storage and what the policy names "
                        "are allowed (policy: maxResources)"
                    )
                elif most is not None and quantity(amount) is None:
                    yield f"{field}.{kind}.{name} is {amount}, which is not a quantity: write 500m, 2 or 4Gi"
                elif most is not None and exceeds(amount, most):
                    yield f"{field}.{kind}.{name} is {amount}, but at most {most} is allowed (policy: maxResources)"


def _timeout(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    own, longest = build.spec.timeout, policy.max_timeout
    if own and longest and parse_duration(own) > parse_duration(longest):
        yield f"timeout is {own}, but at most {longest} is allowed (policy: maxTimeout)"


def _metadata(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    own = build.spec.scheduling.pod_metadata
    for field, entries in (("labels", own.labels), ("annotations", own.annotations)):
        for key in entries:
            if not any(Pattern(text).matches(key) for text in policy.build_metadata):
                allowed = ", ".join(policy.build_metadata) or "none"
                yield f"scheduling.podMetadata.{field} has {key}, but allowed is {allowed} (policy: buildMetadata)"


def _tenant(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    namespace = build.metadata.namespace
    tenant = policy.tenant(namespace)
    if tenant is None:
        yield f"namespace {namespace} is in no entry of the policy, so no build may run there (policy: tenants)"
        return
    number = policy.tenants.index(tenant) if policy.tenants else None
    rule = f"policy: tenants[{number}]" if number is not None else "policy: default of tenants[]"
    for check in (_account, _secrets, _signing, _identities, _nodes):
        for field, message, part in check(build, tenant):
            yield f"{field} {message} ({rule}.{part})"


def cache_volume(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    """Yield what the policy has against the volume that `build` asks for."""
    volume, namespace = build.spec.cache.volume, build.metadata.namespace
    if volume is None:
        return
    allowed, tenant = policy.cache_volumes_for(namespace), policy.tenant(namespace)
    own = tenant is not None and tenant.cache_volumes is not None and tenant in policy.tenants
    rule = f"policy: {f'tenants[{policy.tenants.index(tenant)}].' if own and tenant else ''}cacheVolumes"
    most, name = allowed.max_size, volume.storage_class_name
    if most is None:
        yield f"cache.volume is set, but builds of namespace {namespace} may have no volume ({rule}.maxSize)"
        return
    if not quantity(volume.size):
        yield f"cache.volume.size is {volume.size}, which is not an amount of bytes: write 20Gi"
    elif exceeds(volume.size, most):
        yield f"cache.volume.size is {volume.size}, but at most {most} is allowed ({rule}.maxSize)"
    if name is not None and not named(allowed.storage_classes, name, namespace):
        classes = _only(allowed.storage_classes, namespace)
        yield f"cache.volume.storageClassName is {name}, but {classes} ({rule}.storageClasses)"


_Finding = tuple[str, str, str]
"""A field of spec, what is wrong with it, and the part of the entry that says so."""


def _account(build: MultiArchBuild, tenant: Tenant) -> Iterator[_Finding]:
    scheduling, namespace = build.spec.scheduling, build.metadata.namespace
    priority, account = scheduling.priority_class_name, scheduling.service_account_name
    if priority is not None and not tenant.allows_class(priority, namespace):
        reserved = priority.startswith(SYSTEM_CLASSES) and "the policy has to name classes of the cluster itself"
        yield (
            "scheduling.priorityClassName",
            f"is {priority}, but {reserved or _only(tenant.priority_classes, namespace)}",
            "priorityClasses",
        )
    if not named(tenant.service_accounts, account, namespace):
        allowed = _only(tenant.service_accounts, namespace)
        yield "scheduling.serviceAccountName", f"is {account}, but {allowed}", "serviceAccounts"


def _secrets(build: MultiArchBuild, tenant: Tenant) -> Iterator[_Finding]:
    namespace, keys = build.metadata.namespace, tenant.signing.secrets
    for field, secret in secrets(build):
        if not named(tenant.secrets, secret, namespace):
            yield field, f"is {secret}, but {_only(tenant.secrets, namespace)}", "secrets"
        elif field == _SIGNING_KEY and keys and not named(keys, secret, namespace):
            yield field, f"is {secret}, but {_only(keys, namespace)}", "signing.secrets"
        elif field != _SIGNING_KEY and named(keys, secret, namespace):
            yield field, f"is {secret}, which only output.signing may use", "signing.secrets"


def _signing(build: MultiArchBuild, tenant: Tenant) -> Iterator[_Finding]:
    signing, namespace = build.spec.output.signing, build.metadata.namespace
    if signing and signing.keyless and tenant.signing.keyless is None:
        message = f"is set, but no Fulcio certifies signatures of builds of namespace {namespace}"
        yield "output.signing.keyless", message, "signing.keyless"


_SIGNING_KEY = "output.signing.secretRef.name"


def secrets(build: MultiArchBuild) -> Iterator[tuple[str, str]]:
    """Yield each field that names a Secret, and the Secret."""
    spec = build.spec
    for number, ref in enumerate(spec.output.secret_refs):
        yield f"output.secretRefs[{number}].name", ref.name
    for position, destination in enumerate(spec.output.destinations):
        for number, ref in enumerate(destination.secret_refs):
            yield f"output.destinations[{position}].secretRefs[{number}].name", ref.name
    if spec.output.signing and spec.output.signing.secret_ref:
        yield _SIGNING_KEY, spec.output.signing.secret_ref.name
    if spec.source.git and spec.source.git.secret_ref:
        yield "source.git.secretRef.name", spec.source.git.secret_ref.name
    if spec.source.http and spec.source.http.secret_ref:
        yield "source.http.secretRef.name", spec.source.http.secret_ref.name
    for secret in spec.build.secrets:
        yield f"build.secrets[{secret.id}].secretKeyRef.name", secret.secret_key_ref.name
    if spec.build.ssh:
        yield "build.ssh.secretRef.name", spec.build.ssh.secret_ref.name


def _identities(build: MultiArchBuild, tenant: Tenant) -> Iterator[_Finding]:
    namespace = build.metadata.namespace
    for login in logins(build.spec):
        name = login.identity.name
        if not named(tenant.identities, name, namespace):
            yield login.field, f"is {name}, but {_only(tenant.identities, namespace)}", "identities"


def _registries_of_identities(build: MultiArchBuild, policy: Policy) -> Iterator[str]:
    """Whoever names the registry would get the login: it must be one of the provider's."""
    for login in logins(build.spec):
        provider = login.identity.provider
        for host in login.hosts:
            if not policy.identities.serves(provider, host):
                yield (
                    f"{login.field} would log in to {host}, which is not a registry of {provider} "
                    f"(policy: identities.{str(provider).lower()}.registries)"
                )


def _nodes(build: MultiArchBuild, tenant: Tenant) -> Iterator[_Finding]:
    scheduling, namespace = build.spec.scheduling, build.metadata.namespace
    places: list[tuple[str, Scheduling | Override]] = [("scheduling", scheduling), *_overrides(scheduling)]
    for field, place in places:
        for key, value in place.node_selector.items():
            forced = tenant.placement.node_selector.get(key, value)
            if not tenant.allows_label(key, namespace):
                yield f"{field}.nodeSelector", _label(key, tenant, namespace), "nodeLabels"
            elif forced != value:
                message = f"is {value}, but builds here run on nodes where it is {forced}"
                yield f"{field}.nodeSelector[{key}]", message, "placement"
        for key in _affinity_keys(place.affinity):
            if not tenant.allows_label(key, namespace):
                yield f"{field}.affinity", _label(key, tenant, namespace), "nodeLabels"
        for toleration in place.tolerations:
            if not tenant.allows_toleration(toleration, namespace):
                yield f"{field}.tolerations", _taint(toleration, tenant, namespace), "tolerations"


def _affinity_keys(affinity: Affinity | None) -> Iterator[str]:
    """Yield the labels that an affinity looks at, but for those that it only wants to be missing."""
    nodes = affinity.node_affinity if affinity else None
    if nodes is None:
        return
    required = nodes.required_during_scheduling_ignored_during_execution
    preferred = nodes.preferred_during_scheduling_ignored_during_execution
    terms = [*(required.node_selector_terms if required else ()), *(each.preference for each in preferred)]
    for term in terms:
        yield from (each.key for each in term.match_expressions if each.operator != "DoesNotExist")


def _label(key: str, tenant: Tenant, namespace: str) -> str:
    reserved = named(tenant.node_labels, key, namespace)
    return f"has {key}, but {'the policy must allow it by name' if reserved else _only(tenant.node_labels, namespace)}"


def _taint(toleration: Toleration, tenant: Tenant, namespace: str) -> str:
    if not toleration.key:
        return "has one without a key, which tolerates every taint: name the key"
    taint = toleration.key + (f"={toleration.value}" if toleration.operator == "Equal" else "")
    reserved = tenant.tolerations == ("*",)
    return (
        f"has {taint}, but {'the policy must allow it by name' if reserved else _only(tenant.tolerations, namespace)}"
    )


def _only(patterns: Sequence[str], namespace: str) -> str:
    return f"builds of namespace {namespace} may use {', '.join(patterns) or 'none'}"


def _overrides(scheduling: Scheduling) -> list[tuple[str, Override]]:
    return [(f"scheduling.overrides[{entry.platform}]", entry) for entry in scheduling.overrides]


_RUN_CHECKS: tuple[_Check, ...] = (_outputs, _emulation, _timeout)
"""Of what a run does and how long it may take: asked when one is to start."""
_POD_CHECKS: tuple[_Check, ...] = (_tenant, _registries_of_identities, _resources, _metadata, cache_volume)
"""Of what its pods are."""
