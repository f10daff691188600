"""The request that hands a build to a kept builder."""

from multiarchbuild.api.mounts import IDLE_ANNOTATION, REQUEST_ANNOTATION, SOURCE_ANNOTATION
from multiarchbuild.api.requests import BuildRequest
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import UNDISTURBED, AnnotateSource, HandOver
from multiarchbuild.plan.children import ATTEMPT_LABEL, RUN_LABEL
from multiarchbuild.plan.policy import Policy

from .inputs import inputs_of


def request(action: HandOver, build: MultiArchBuild, policy: Policy) -> dict[str, dict[str, str]]:
    """Return the labels and annotations that make the pod one of the new run, and ask it to build."""
    wanted = action.build
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
    source = AnnotateSource(action.pod, wanted.source).annotations if wanted.source else {SOURCE_ANNOTATION: ""}
    return {
        "labels": {RUN_LABEL: wanted.run_id, ATTEMPT_LABEL: str(wanted.attempt)},
        "annotations": {
            **source,
            **UNDISTURBED,
            REQUEST_ANNOTATION: asked.model_dump_json(by_alias=True, exclude_none=True),
            IDLE_ANNOTATION: "",
        },
    }
