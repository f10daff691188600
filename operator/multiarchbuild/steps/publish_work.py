"""What the pod of the publish step does: it publishes, deletes what has expired, and does so again if it stays."""

import os
from argparse import Namespace
from collections.abc import Callable, Sequence

from multiarchbuild.api.answers import REQUEST_ENV
from multiarchbuild.api.requests import PublishRequest
from multiarchbuild.api.results import Published

from .kept import Work, write_inputs
from .mounts import Mounts
from .publish import publish
from .termination import conclude


def publish_once(mounts: Mounts, arguments: Callable[[], Namespace], request: str | None = None) -> int:
    """Publish what `arguments` say and return the exit code; then delete what has expired.

    `request` is what it is the result of, where one container has several in a row.
    """
    expire: Callable[[], None] | None = None

    def published() -> Published:
        nonlocal expire
        told = arguments()
        if not told.list:
            return publish(mounts, told.tag)
        from .expiry import Expiry  # noqa: PLC0415 - few builds ask for it

        expiry = Expiry(mounts, told.list, told.cache, told.cache_from, told.keep)
        expire = expiry.run
        return expiry.published(publish(mounts, told.tag, expiry.begin))

    code = conclude(mounts, published, request)
    if expire is not None:
        # The result is told: nothing can come of this but that something is deleted.
        expire()
    return code


def publishing(mounts: Mounts, first: Namespace, parse: Callable[[Sequence[str]], Namespace]) -> Work:
    """Return what a pod does that was created with the arguments `first`; `parse` reads those of a request."""

    def handed(given: Mounts, text: str) -> int:
        def arguments() -> Namespace:
            asked = PublishRequest.model_validate_json(text)
            write_inputs(given, asked.inputs)
            return parse(["publish", *asked.arguments])

        return publish_once(given, arguments, os.environ[REQUEST_ENV])

    return Work(lambda: publish_once(mounts, lambda: first, os.environ[REQUEST_ENV]), handed)
