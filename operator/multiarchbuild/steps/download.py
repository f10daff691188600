"""Downloads what is pinned by a digest: nobody looks into it before its bytes are known to be the right ones."""

import hashlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.http import cause, connections

from .archive import MAX_BYTES
from .errors import FOR_ALL, StepError, certificate_error
from .mounts import Mounts
from .trust import ca_file

_CHUNK = 256 * 1024
_RETRY = urllib3.Retry(
    total=8,
    connect=2,
    read=2,
    # Of a redirect to another host, urllib3 drops Authorization.
    redirect=5,
    status=3,
    status_forcelist=(429, 500, 502, 503, 504),
    backoff_factor=0.5,
    backoff_max=5,
    retry_after_max=30,
    raise_on_status=False,
    raise_on_redirect=False,
)


def download(mounts: Mounts, url: str, digest: str, file: Path, *, headers: Mapping[str, str], hint: str) -> None:
    """Write what is at `url` to `file` if its digest is `digest` (`algorithm:hexadecimal`).

    `hint` says in errors what to look at.

    Raises:
        StepError: it cannot be had, is too large, or is something else.
    """
    http = connections(ca_file(mounts), retries=_RETRY, timeout=urllib3.Timeout(connect=10, read=60), num_pools=2)
    try:
        response = http.request("GET", url, headers=dict(headers), preload_content=False)
        if response.status != HTTPStatus.OK:
            raise _refused(url, response, hint)
        # As it is: an archive that a server marks as compressed has its checksum over the compressed bytes.
        save(response.stream(_CHUNK, decode_content=False), digest, file, url)
    except HTTPError as error:
        said = f"{urlsplit(url).netloc} cannot be reached: {cause(error)}"
        unreachable = StepError(Reason.SOURCE_UNREACHABLE, f"{said}. {hint}")
        raise (certificate_error(said, FOR_ALL) or unreachable) from error


def save(chunks: Iterable[bytes], digest: str, file: Path, what: str) -> None:
    """Write `chunks` to `file` and compare their digest; `what` names them in errors.

    Raises:
        StepError: they are too many, or have another digest.
    """
    algorithm, _, expected = digest.partition(":")
    if algorithm not in {"sha256", "sha384", "sha512"}:
        raise StepError(
            Reason.SOURCE_INVALID,
            f"{what} is pinned by {algorithm}, which is not known here: use sha256 (Flux: source-controller's option "
            "--artifact-digest-algo).",
        )
    hashed, size = hashlib.new(algorithm), 0
    with file.open("wb") as output:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_BYTES:
                raise StepError(Reason.SOURCE_INVALID, f"{what} is larger than {MAX_BYTES // 1024**3} GiB.")
            hashed.update(chunk)
            output.write(chunk)
    if hashed.hexdigest() != expected:
        raise StepError(
            Reason.SOURCE_CHECKSUM_MISMATCH,
            f"{what} has the checksum {algorithm}:{hashed.hexdigest()} ({size} bytes), not {digest}. If it was changed "
            "on purpose, write its new checksum; else find out who changed it.",
        )


def _refused(url: str, response: urllib3.BaseHTTPResponse, hint: str) -> StepError:
    answered = f"{url} answered {response.status} {response.reason or ''}".rstrip()
    match response.status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return StepError(Reason.SOURCE_DENIED, f"{answered}: the credentials are missing or not accepted. {hint}")
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.TOO_MANY_REQUESTS:
            return StepError(Reason.SOURCE_UNREACHABLE, f"{answered}.")
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return StepError(Reason.SOURCE_UNREACHABLE, f"{answered}.")
    return StepError(Reason.SOURCE_NOT_FOUND, f"{answered}. {hint}")
