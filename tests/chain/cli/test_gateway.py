"""`assay gateway` before it serves: what the operator has to mend."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from chain.cli.main import build_app

NODE = ("--node", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "NO_NODE"),
        (NODE, "NO_KEY"),
        ((*NODE, "--listen", "0.0.0.0:8088"), "NO_API_KEYS"),
        ((*NODE, "--listen", "[::]:8088"), "NO_API_KEYS"),
        ((*NODE, "--listen", "8088"), "USAGE"),
        ((*NODE, "--api-keys", "missing.toml"), "NO_BOOK"),
        ((*NODE, "--api-keys", "missing.toml", "--book", "book"), "BAD_API_KEYS"),
        ((*NODE, "--jobs", "0"), "USAGE"),
        ((*NODE, "--timeout", "nan"), "USAGE"),
        (("--home", "missing"), "NO_DEVNET"),
    ],
)
def test_what_is_missing_is_told(
    options: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(build_app(), ["gateway", *options, "--json"])
    assert done.exit_code != 0
    assert f'"reason": "{reason}"' in done.stderr
