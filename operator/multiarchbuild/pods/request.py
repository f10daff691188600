"""The request that hands a build, or the publish step, to a kept pod."""

from multiarchbuild.api.mounts import (
    BUILT_ANNOTATION,
    BUILT_AT_ANNOTATION,
    IDLE_ANNOTATION,
    REQUEST_ANNOTATION,
    SOURCE_ANNOTATION,
)
from multiarchbuild.api.requests import BuildRequest, PublishRequest
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import (
    UNDISTURBED,
    HandOver,
    StartBuild,
    StartPublish,
    built_annotations,
    source_annotations,
)
from multiarchbuild.plan.children import ATTEMPT_LABEL, RUN_LABEL, TAGS_ANNOTATION
from multiarchbuild.plan.policy import Policy

from .inputs import inputs_of
from .pod import publish_arguments


def request(action: HandOver, build: MultiArchBuild, policy: Policy) -> dict[str, dict[str, str]]:
    """Return the labels and annotations that make the pod one of the new run, and ask it to work."""
    wanted = action.wanted
    if isinstance(wanted, StartBuild):
        asked, own = _build(action, wanted, build, policy)
    else:
        asked, own = _publish(action, wanted, build, policy)
    return {
        "labels": {RUN_LABEL: wanted.run_id, ATTEMPT_LABEL: str(wanted.attempt)},
        "annotations": {**own, **UNDISTURBED, REQUEST_ANNOTATION: asked, IDLE_ANNOTATION: ""},
    }


def _build(action: HandOver, wanted: StartBuild, build: MultiArchBuild, policy: Policy) -> tuple[str, dict[str, str]]:
    inputs, contents = inputs_of(wanted.run_id, build, policy, wanted.parents)
    asked = BuildRequest(
        name=wanted.name,
        number=action.number,
        at=action.at,
        seconds=wanted.deadline,
        until=wanted.until,
        inputs=inputs,
        contents=contents,
        last=action.last,
    )
    source = source_annotations(wanted.source) if wanted.source else {SOURCE_ANNOTATION: ""}
    return asked.model_dump_json(by_alias=True, exclude_none=True), source


def _publish(
    action: HandOver, wanted: StartPublish, build: MultiArchBuild, policy: Policy
) -> tuple[str, dict[str, str]]:
    inputs, _ = inputs_of(wanted.run_id, build, policy, wanted.parents)
    asked = PublishRequest(
        name=wanted.name,
        number=action.number,
        at=action.at,
        inputs=inputs,
        arguments=tuple(publish_arguments(wanted, build, policy)),
    )
    built = {BUILT_ANNOTATION: "", BUILT_AT_ANNOTATION: ""}
    if wanted.built is not None:
        built = built_annotations(wanted.built, action.at)
    return asked.model_dump_json(by_alias=True, exclude_none=True), {
        **built,
        TAGS_ANNOTATION: ",".join(wanted.tags),
    }
