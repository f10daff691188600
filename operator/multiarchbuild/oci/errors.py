"""What a registry can answer instead of what was asked for.

RegistryError
├── DeniedError       401 or 403: the credentials are missing, wrong, or not allowed to do this
├── NotFoundError     404: no such repository, manifest or tag
├── UnreachableError  no answer: name, connection, TLS or time-out
├── RejectedError     any other 4xx, such as 400, 405, 412 or 413: the same request is answered so again
│   └── ImmutableTagError  the tag exists and may not be moved
└── RefusedError      an error of its own, such as 429 or 5xx after all retries
"""


class RegistryError(Exception):
    """A request to a registry that failed; the message names the registry and what it said."""


class DeniedError(RegistryError):
    """The registry does not let these credentials do this."""


class NotFoundError(RegistryError):
    """The registry has no such thing."""


class UnreachableError(RegistryError):
    """The registry did not answer."""


class RejectedError(RegistryError):
    """The registry does not accept the request, however often it is sent."""


class ImmutableTagError(RejectedError):
    """The registry does not let a tag move that it has."""


class RefusedError(RegistryError):
    """The registry answered with an error of its own."""
