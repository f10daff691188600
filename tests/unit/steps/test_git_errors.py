"""Why git failed is read from what it printed. Its words here were printed by git 2.39 and git-lfs 3.3."""

from pathlib import Path

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.source import GitSource
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.git_errors import failure

URL = "https://git.test/team/app"
FOLDER = Path("/run/mab/work/context")
FETCH = ("fetch", "--quiet", "origin", "main")
CHECKOUT = ("checkout", "--quiet", "--detach", "1" * 40)
SUBMODULE = ("submodule", "--quiet", "update", "--init", "--recursive")
OID = "ffa63583dfa6706b87d284b86b0d693a161e4840aad2c5cf6b5d27c3b9621f7d"


def why(arguments: tuple[str, ...], said: str, *, url: str = URL, secret: str = "", code: int = 128) -> StepError:
    more = {"secretRef": {"name": secret}} if secret else {}
    source = GitSource.model_validate({"url": url, "ref": "main", **more})
    return failure(source, arguments, said, code=code, folder=FOLDER)


def cloning(cause: str, url: str, path: str = "lib", *, outer: str = "") -> str:
    """Return what `git submodule update` prints when the clone of one submodule fails both times."""
    once = f"{cause}\nfatal: clone of '{url}' into submodule path '{FOLDER / path}' failed\n"
    name = path.removeprefix(f"{outer}/")
    recursing = f"fatal: Failed to recurse into submodule path '{outer}'\n" if outer else ""
    again = f"Failed to clone '{name}'. Retry scheduled\n"
    return f"{once}{again}{once}Failed to clone '{name}' a second time, aborting\n{recursing}"


def lfs(cause: str) -> str:
    """Return what `git checkout` prints when git-lfs cannot fetch a file."""
    return (
        "Downloading big.bin (7 B)\nError downloading object: big.bin (ffa6358): Smudge error: Error downloading "
        f"big.bin ({OID}): {cause}\n\nErrors logged to '{FOLDER}/.git/lfs/logs/1.log'.\nUse `git lfs logs last` to "
        "view the log.\nerror: external filter 'git-lfs filter-process' failed\n"
        "fatal: big.bin: smudge filter lfs failed\n"
    )


LIB = "https://git.test/team/lib"
ELSEWHERE = "https://other.test/lib"
NO_USER = "fatal: could not read Username for 'https://git.test': terminal prompts disabled"
MISSING = f"[{OID}] Object does not exist: [404] Object does not exist"
NOT_OURS = f"fatal: remote error: upload-pack: not our ref {'1' * 40}"

NO_COMMIT = (
    f"fatal: Fetched in submodule path 'lib', but it did not contain {'1' * 40}. Direct fetching of that commit failed."
)

SUBMODULES = {
    "without url": (
        "fatal: No url found for submodule path 'vendor/old' in .gitmodules\n",
        Reason.SOURCE_INVALID,
        "'vendor/old' of https://git.test/team/app has no url in .gitmodules",
    ),
    "missing": (
        cloning(f"fatal: repository '{LIB}/' not found", LIB),
        Reason.GIT_REPOSITORY_NOT_FOUND,
        f"The submodule 'lib' ({LIB}) of {URL} does not exist",
    ),
    "missing in another": (
        cloning(f"fatal: repository '{LIB}/' not found", LIB, "lib/deep/er", outer="lib"),
        Reason.GIT_REPOSITORY_NOT_FOUND,
        f"The submodule 'lib/deep/er' ({LIB}) of {URL} does not exist",
    ),
    "missing while another was slow": (
        cloning("fatal: unable to access 'x': Operation timed out", f"{LIB}-2", "other").replace(
            "Failed to clone 'other' a second time, aborting\n", ""
        )
        + cloning(f"fatal: repository '{LIB}/' not found", LIB),
        Reason.GIT_REPOSITORY_NOT_FOUND,
        f"The submodule 'lib' ({LIB})",
    ),
    "missing commit": (
        f"{NOT_OURS}\n{NO_COMMIT}\n",
        Reason.GIT_REF_NOT_FOUND,
        f"The submodule 'lib' of {URL} has no commit {'1' * 40}: push",
    ),
    "private": (
        cloning(NO_USER, LIB),
        Reason.GIT_AUTHENTICATION_FAILED,
        "Secret 'token' of source.git.secretRef read the submodule too",
    ),
    "private elsewhere": (
        cloning(NO_USER, ELSEWHERE),
        Reason.GIT_AUTHENTICATION_FAILED,
        "credentials are sent to git.test only",
    ),
    "over ssh": (
        cloning("fatal: transport 'ssh' not allowed", "ssh://git@git.test/lib"),
        Reason.GIT_AUTHENTICATION_FAILED,
        "'lib' (ssh://git@git.test/lib) of https://git.test/team/app is reached by ssh",
    ),
    "of no host": (
        cloning(f"fatal: unable to access '{ELSEWHERE}/': Could not resolve host: other.test", ELSEWHERE),
        Reason.GIT_UNREACHABLE,
        f"Fetching the submodule 'lib' ({ELSEWHERE})",
    ),
    "in LFS": (
        lfs(MISSING) + f"fatal: Unable to checkout '{'2' * 40}' in submodule path 'lib'\n",
        Reason.GIT_LFS_FAILED,
        f"'big.bin', a file in git LFS of the submodule 'lib' of {URL}, cannot be fetched: [{OID}] Object does not",
    ),
}


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_failure_of_a_submodule_names_it_and_not_its_parent(name: str) -> None:
    said, reason, words = SUBMODULES[name]
    error = why(SUBMODULE, said, secret="token")
    assert (error.reason, words in error.message) == (reason, True), error.message
    assert "'main'" not in error.message, "the branch of the parent has nothing to do with it"


LFS = {
    MISSING: (Reason.GIT_LFS_FAILED, "git lfs push --all"),
    f"batch response: Git credentials for {URL} not found.": (Reason.GIT_LFS_FAILED, "Name a Secret in source.git"),
    f"batch response: Authorization error: {URL}/info/lfs/objects/batch": (Reason.GIT_LFS_FAILED, "Name a Secret"),
    f"batch response: Repository or object not found: {URL}/timeout/objects/batch": (
        Reason.GIT_LFS_FAILED,
        "git lfs push",
    ),
    'batch response: Post "https://a.test/batch": dial tcp 127.0.0.1:1: connect: connection refused': (
        Reason.GIT_UNREACHABLE,
        "'big.bin'",
    ),
    'batch response: Post "https://a.test/b": dial tcp: lookup a.test on 10.0.0.1:53: no such host': (
        Reason.GIT_UNREACHABLE,
        "no such host",
    ),
    "batch response: Fatal error: Server error: https://a.test/objects/batch": (Reason.GIT_UNREACHABLE, "Server error"),
}


@pytest.mark.parametrize("cause", LFS)
def test_a_failure_of_lfs_names_the_file_and_what_its_server_said(cause: str) -> None:
    reason, words = LFS[cause]
    error = why(CHECKOUT, lfs(cause))
    assert (error.reason, words in error.message) == (reason, True), error.message
    assert f"'big.bin', a file in git LFS of {URL}, cannot be fetched: {cause.rstrip('.')}." in error.message


PLAIN = {
    "fatal: couldn't find remote ref main\n": Reason.GIT_REF_NOT_FOUND,
    f"{NO_USER}\n": Reason.GIT_AUTHENTICATION_FAILED,
    f"fatal: Authentication failed for '{URL}/'\n": Reason.GIT_AUTHENTICATION_FAILED,
    f"fatal: repository '{URL}/' not found\n": Reason.GIT_REPOSITORY_NOT_FOUND,
    "git@git.test: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n\nPlease make sure "
    "you have the correct access rights\nand the repository exists.\n": Reason.GIT_AUTHENTICATION_FAILED,
    f"fatal: unable to access '{URL}/': The requested URL returned error: 503\n": Reason.GIT_UNREACHABLE,
    f"fatal: unable to access '{URL}/': The requested URL returned error: 429\n": Reason.GIT_UNREACHABLE,
    f"fatal: unable to access '{URL}/': Failed to connect to git.test port 443 after 0 ms: Couldn't connect to "
    "server\n": Reason.GIT_UNREACHABLE,
    "error: RPC failed; curl 28 Operation too slow. Less than 1000 bytes/sec transferred the last 30 seconds\nfatal: "
    "early EOF\nfatal: fetch-pack: invalid index-pack output\n": Reason.GIT_UNREACHABLE,
    "ssh: connect to host git.test port 22: Connection refused\r\nfatal: Could not read from remote "
    "repository.\n": Reason.GIT_UNREACHABLE,
    # An answer of its own makes of the server an unreachable one only where a retry may be answered differently.
    f"fatal: unable to access '{URL}/': The requested URL returned error: 410\n": Reason.GIT_FAILED,
    "fatal: protocol error: bad line length character: <htm\n": Reason.GIT_FAILED,
    "error: invalid path 'a/../b'\nfatal: unable to checkout working tree\n": Reason.GIT_FAILED,
    "": Reason.GIT_FAILED,
    "fatal: write error: No space left on device\n": Reason.STEP_FAILED,
}


@pytest.mark.parametrize("said", PLAIN)
def test_only_a_server_that_does_not_answer_is_unreachable(said: str) -> None:
    error = why(FETCH, said)
    assert error.reason is PLAIN[said], error.message
    assert URL in error.message


@pytest.mark.parametrize(
    "name",
    ["connection-refused", "timeout", "early-eof", "repository-not-found", "git-lfs", "401", "no space left on device"],
)
def test_the_words_of_an_error_in_the_name_of_a_repository_decide_nothing(name: str) -> None:
    url = f"https://git.test/{name.replace(' ', '%20')}"
    said = f"error: invalid path '{name}'\nfatal: cannot do it with '{url}/'\n"
    assert why(CHECKOUT, said, url=url).reason is Reason.GIT_FAILED


def test_a_git_that_was_killed_is_not_the_server() -> None:
    error = why(FETCH, "", code=-9)
    assert (error.reason, "git fetch of https://git.test/team/app was ended by SIGKILL" in error.message) == (
        Reason.STEP_FAILED,
        True,
    )
