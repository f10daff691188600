"""What the people who run the operator decide about the pods that it starts: resources, labels and annotations."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from multiarchbuild.api.base import Model
from multiarchbuild.api.scheduling import Resources

from .children import Role
from .patterns import KeyPattern
from .quantities import Amount, quantity

_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile("([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_OWN = re.compile(r"(.*\.)?multiarch\.build/.*|app\.kubernetes\.io/managed-by")
"""Keys by which the operator finds its pods and what they have."""


def are_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return `labels`, or raise ValueError where a key or a value is not valid."""
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a valid key: write <name> or <domain>/<name>, such as example.com/team")
        if not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{key}: {value!r} is not a valid label value: use letters, digits, '-', '_' and '.'")
    return labels


class Injection(StrEnum):
    """Whether admission webhooks may add containers to the pods of builds."""

    DISABLED = "Disabled"
    """The pods carry the labels and annotations by which meshes and agents leave a pod alone."""
    ALLOWED = "Allowed"
    """The namespace and the webhooks decide."""


class PodMetadata(Model):
    """Labels and annotations of all pods."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels, such as kueue.x-k8s.io/queue-name: builds."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations; those that injection: Disabled sets may be set to something else."""

    @field_validator("labels", "annotations")
    @classmethod
    def _keys_are_free(cls, entries: dict[str, str]) -> dict[str, str]:
        for key in entries:
            are_labels({key: ""})
            if _OWN.fullmatch(key):
                raise ValueError(f"{key} is set by the operator: remove it")
        return entries

    @field_validator("labels")
    @classmethod
    def _labels_are_valid(cls, labels: dict[str, str]) -> dict[str, str]:
        return are_labels(labels)


class VolumeSizes(Model):
    """How large the volumes of a pod may become on its node's disk; the kubelet evicts a pod beyond that."""

    work: Amount = "50Gi"
    """Of the step: the source, unpacked."""
    builder: Amount = "100Gi"
    """Of BuildKit: layers and cache. Where the builder has a limit of ephemeral-storage, that is it."""


class AccessMode(StrEnum):
    """How the claim of a volume is bound."""

    ONE_POD = "ReadWriteOncePod"
    """To one pod: the scheduler and the kubelet see to it, besides the operator."""
    ONE_NODE = "ReadWriteOnce"
    """To one node, for provisioners that know nothing else: the operator alone sees to it that one pod has it."""


class CacheVolumes(Model):
    """Volumes that builds may ask for (cache.volume). Without `maxSize` none are allowed."""

    max_size: Amount | None = None
    """How large each volume may be at most, such as 50Gi."""
    storage_classes: tuple[KeyPattern, ...] = ()
    """Patterns of the StorageClasses that builds may name."""
    default_storage_class: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9.-]*$")] = ""
    """StorageClass of builds that name none; empty for the default of the cluster."""
    access_mode: AccessMode = AccessMode.ONE_POD
    """accessModes of the claims."""

    @field_validator("max_size")
    @classmethod
    def _is_some_room(cls, amount: str | int | None) -> str | int | None:
        if amount is not None and not quantity(amount):
            raise ValueError("is less than a byte: write 50Gi, or remove it to allow no volumes")
        return amount


def _usual(memory: str) -> Resources:
    return Resources(requests={"cpu": "50m", "memory": "64Mi"}, limits={"memory": memory})


_USUAL = {"resolve": _usual("1Gi"), "build": _usual("2Gi"), "publish": _usual("512Mi")}
"""Enough for repositories of several GiB: git holds the names of all objects and some of their bases in memory."""


def _filled(own: Resources, usual: Resources) -> Resources:
    """Return `own`, with the usual amounts where it has none; a usual amount gives way to one that is set."""
    requests = {**usual.requests, **own.requests}
    limits = {**usual.limits, **own.limits}
    for name in requests.keys() & limits.keys():
        request, limit = quantity(requests[name]), quantity(limits[name])
        if request is not None and limit is not None and request > limit:
            if name in own.requests:
                limits[name] = requests[name]
            else:
                requests[name] = limits[name]
    return Resources(requests=requests, limits=limits)


class StepResources(Model):
    """Resources of the container `step`; what is not set has its default."""

    resolve: Annotated[Resources, Field(validate_default=True)] = Resources()
    """Of pods that look up what a branch or tag means, for a run or a poll."""
    build: Annotated[Resources, Field(validate_default=True)] = Resources()
    """Of the step beside BuildKit: it fetches the source, and sends it to BuildKit, whose own resources are those of
    spec.scheduling.resources."""
    publish: Annotated[Resources, Field(validate_default=True)] = Resources()
    """Of pods that push the index, sign it and move the tags."""

    @field_validator("resolve", "build", "publish")
    @classmethod
    def _are_possible(cls, own: Resources, info: ValidationInfo) -> Resources:
        for kind, amounts in (("requests", own.requests), ("limits", own.limits)):
            for name, amount in amounts.items():
                if quantity(amount) is None:
                    raise ValueError(f"{kind}.{name} is {amount}, which is not a quantity: write 500m, 2 or 4Gi")
        for name in own.requests.keys() & own.limits.keys():
            request, limit = quantity(own.requests[name]), quantity(own.limits[name])
            if request is not None and limit is not None and request > limit:
                raise ValueError(f"requests.{name} is more than limits.{name}: raise the limit, or lower the request")
        assert info.field_name is not None
        return _filled(own, _USUAL[info.field_name])

    def of(self, role: Role) -> Resources:
        """Return the resources of the step in a pod of this role."""
        found: Resources = getattr(self, _field(role))
        return found

    @staticmethod
    def field(role: Role) -> str:
        """Return the field of the policy that says how much memory the step of a pod of this role may use."""
        return f"stepResources.{_field(role)}.limits.memory"


def _field(role: Role) -> str:
    """Return the name of the field for pods of this role: a look between two runs does what the resolve step does."""
    return str(Role.RESOLVE if role in {Role.CHECK, Role.CHECK_BASES} else role)
