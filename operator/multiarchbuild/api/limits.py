"""How long texts may be, in characters, where steps report them and where status shows them."""

from typing import Final

MESSAGE: Final = 2048
LOG_TAIL: Final = 4096
CAUSE: Final = 512
BASE: Final = 460
"""`registry/repository:tag@sha256:…`"""
BASES: Final = 8
FAILED_ATTEMPT: Final = 256
"""Of the message of an attempt that was followed by another."""
FAILED_ATTEMPTS: Final = 3
WARNING: Final = 256
WARNINGS: Final = 5
CHANGED: Final = 512
AUTHOR: Final = 256
REF: Final = 255
TAG: Final = 128
"""Also the limit of the OCI Distribution Specification, "Pulling manifests"."""
TAGS: Final = 16
DESTINATIONS: Final = 8
PLATFORM: Final = 32
PLATFORMS: Final = 16
URL: Final = 2048
IDENTITY: Final = 400
"""`https://kubernetes.io/namespaces/…/serviceaccounts/…`, names of 63 and 253 characters."""
ISSUER: Final = 255
REVISION: Final = 400
"""A branch of REF characters, `@sha256:` and a digest, and some room for what others write."""
DIGEST: Final = 140
"""`sha512:` and 128 hexadecimal digits, with room: Flux may be told to use another algorithm than sha256."""
