"""What a builder that stays does: it builds."""

import os
from dataclasses import replace

from multiarchbuild.api.answers import REQUEST_ENV
from multiarchbuild.api.requests import BuildRequest
from multiarchbuild.api.results import Built

from .build import Request, build
from .deadline import deadline_in
from .kept import Work, write_inputs
from .mounts import Mounts
from .termination import conclude


def building(mounts: Mounts, first: Request) -> Work:
    """Return what a builder does that was created for `first`."""

    def handed(given: Mounts, text: str) -> int:
        def built() -> Built:
            asked = BuildRequest.model_validate_json(text)
            write_inputs(given, asked.inputs, asked.contents)
            return build(given, replace(first, deadline=deadline_in(asked.seconds, asked.until), last=asked.last))

        return conclude(given, built, os.environ[REQUEST_ENV])

    return Work(lambda: conclude(mounts, lambda: build(mounts, first), os.environ[REQUEST_ENV]), handed)
