"""Where labels and annotations are in an object, as a JSON patch names them."""


def pointer(part: str, key: str) -> str:
    """Return the JSON pointer (RFC 6901) to one of the `labels` or `annotations`."""
    return f"/metadata/{part}/{key.replace('~', '~0').replace('/', '~1')}"
