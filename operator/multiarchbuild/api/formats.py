"""How images are written. Imports no pydantic: the command line loads this at each key press."""

from enum import StrEnum


class CompressionType(StrEnum):
    """How layers are compressed."""

    GZIP = "Gzip"
    ZSTD = "Zstd"
    ESTARGZ = "Estargz"
    """gzip with a table of contents: the stargz snapshotter starts a container before all of it is pulled."""
    UNCOMPRESSED = "Uncompressed"


class Format(StrEnum):
    """What the tags name."""

    INDEX = "Index"
    """An index, whatever it lists."""
    MANIFEST = "Manifest"
    """The manifest of the only image, for what reads no index, such as AWS Lambda."""
