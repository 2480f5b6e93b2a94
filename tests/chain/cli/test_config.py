"""`assay config`: what is set, what is not, and what would keep a node from starting."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chain.cli.main import build_app
from chain.devnet import create_devnet


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A validator's home with real keys."""
    create_devnet(tmp_path / "net", 1)
    return tmp_path / "net" / "validator-0"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), ["config", *map(str, arguments)])


def json_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_show_prints_a_whole_file_that_the_node_would_read_alike(home: Path) -> None:
    shown = run("show", "--home", home)
    assert shown.exit_code == 0
    assert tomllib.loads(shown.stdout)["calls"] == {"open_max": 4096, "open_max_by_client": 1024}
    before = json_of(run("show", "--home", home, "--json"))
    (home / "node.toml").write_text(shown.stdout)
    assert json_of(run("show", "--home", home, "--json")) == before


def test_diff_names_what_was_changed_and_from_what(home: Path) -> None:
    file = home / "node.toml"
    file.write_text(file.read_text().replace("batch_interval_ms = 20", "batch_interval_ms = 35"))
    changed = json_of(run("diff", "--home", home, "--json"))
    assert changed["batch_interval_ms"] == {"value": 35, "default": 20}
    assert changed["http.listen"]["default"] == ""
    assert set(changed) == {"batch_interval_ms", "http.listen", "genesis", "public_listen"}


def test_check_passes_a_home_that_would_start(home: Path) -> None:
    assert json_of(run("check", "--home", home, "--json"))["validator"] == 0


def test_check_names_an_unknown_key(home: Path) -> None:
    file = home / "node.toml"
    file.write_text("batch_intervall_ms = 20\n" + file.read_text())
    refused = run("check", "--home", home, "--json")
    assert refused.exit_code == 1
    assert "batch_intervall_ms" in json.loads(refused.stderr)["detail"]


def test_check_finds_keys_of_another_validator(home: Path, tmp_path: Path) -> None:
    other = create_devnet(tmp_path / "other", 1)
    (home / "keys" / "signing.json").write_bytes(
        (tmp_path / "other" / other.nodes[0].home / "keys" / "signing.json").read_bytes()
    )
    (home / "keys" / "passphrase").write_bytes(
        (tmp_path / "other" / other.nodes[0].home / "keys" / "passphrase").read_bytes()
    )
    refused = run("check", "--home", home, "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["reason"] == "BAD_CONFIG"
