"""The command line."""

from pathlib import Path

import pytest

from multiarchbuild.controller.main import EXIT_USAGE, _address, _parser, main


def test_a_wrong_policy_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("isolation: Docker", encoding="utf-8")
    assert main(["--policy", str(policy)]) == EXIT_USAGE
    assert "isolation:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("[::]:80", ("::", 80)),
        ("localhost:1", ("localhost", 1)),
        (":8080", ("", 8080)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert _address(text) == expected


@pytest.mark.parametrize("text", ["8080", ":", "host:", "host:http", "host:65536"])
def test_wrong_addresses(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--listen", text])
    assert "is not [HOST]:PORT" in capsys.readouterr().err
