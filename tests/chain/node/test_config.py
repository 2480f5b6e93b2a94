"""node.toml: typed, with every unknown key refused by name."""

import re
from pathlib import Path

import pytest

from chain.node.config import (
    CONFIG_FILE_NAME,
    ConfigError,
    NodeConfig,
    ProviderSettings,
    edit_config,
    load_config,
    save_config,
)
from chain.pruning import KEEP_EVERYTHING, PruningPolicy


def write(home: Path, text: str) -> None:
    (home / CONFIG_FILE_NAME).write_text(text)


def test_one_line_is_enough(tmp_path: Path) -> None:
    write(tmp_path, "validator = 2\n")
    config = load_config(tmp_path)
    assert config.validator == 2
    assert config.provider == ProviderSettings()
    assert config.runtimes == ()


def test_relative_paths_are_taken_from_the_home_and_absolute_ones_stay(tmp_path: Path) -> None:
    write(tmp_path, 'validator = 0\ngenesis = "/else/genesis.json"\n[keys]\nvrf = "my/vrf.json"\n')
    config = load_config(tmp_path)
    assert config.data == tmp_path / "data"
    assert config.genesis == Path("/else/genesis.json")
    assert config.keys.vrf == tmp_path / "my" / "vrf.json"
    assert config.keys.signing == tmp_path / "keys" / "signing.json"


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    saved = NodeConfig(validator=1, runtimes=("h:9", "h:8"), provider=ProviderSettings(capacity=9))
    save_config(tmp_path, saved)
    loaded = load_config(tmp_path)
    assert loaded.provider == saved.provider
    assert loaded.runtimes == saved.runtimes


def test_everything_is_kept_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    write(tmp_path, "validator = 0\n")
    assert load_config(tmp_path).storage.policy() == KEEP_EVERYTHING
    write(tmp_path, "validator = 0\n[storage]\nkeep_blocks = 1000\nkeep_ms = 86400000\n")
    assert load_config(tmp_path).storage.policy() == PruningPolicy(1_000, 86_400_000)


def test_an_edit_changes_what_it_names_only(tmp_path: Path) -> None:
    save_config(tmp_path, NodeConfig(validator=1, batch_interval_ms=30))
    edit_config(tmp_path, runtimes=["h:9"])
    config = load_config(tmp_path)
    assert (config.runtimes, config.batch_interval_ms, config.validator) == (("h:9",), 30, 1)
    assert config.genesis == tmp_path / "genesis.json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("validator = 0\ncolour = 1\n", "colour: nobody knows this key"),
        ("validator = 0\n[provider]\nprice = 1\n", "provider.price: nobody knows this key"),
        ("validator = 0\n[storage]\nkeep = 1\n", "storage.keep: nobody knows this key"),
        ("validator = 0\n[storage]\nkeep_blocks = 511\n", "storage.keep_blocks: Input should be"),
        ("validator = 0\n[keys]\nspare = 'x'\n", "keys.spare: nobody knows this key"),
        ("", "validator: Field required"),
        ("validator = -1\n", "validator: Input should be greater than or equal to 0"),
        ("validator = 0\nbatch_bytes = 5\n", "batch_bytes: Input should be greater"),
        ("validator = 0\n[provider]\ncapacity = 0\n", "provider.capacity: Input should be"),
        ('validator = 0\nruntime = "h:1"\n', "runtime: nobody knows this key"),
        ('validator = 0\nruntimes = ["h"]\n', "runtimes: address is 'h'"),
        ('validator = 0\npeer_addresses = { x = "h:1" }\n', "'x' is no index of a validator"),
        ('validator = 0\nruntimes = ["h:1", "h:1"]\n', "an address is named twice in h:1, h:1"),
        ("validator = \n", "is not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_told_where(
    tmp_path: Path, text: str, told: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert told in str(caught.value)
    assert str(tmp_path / CONFIG_FILE_NAME) in str(caught.value)


def test_an_edit_that_would_make_the_file_wrong_leaves_it_as_it_was(tmp_path: Path) -> None:
    save_config(tmp_path, NodeConfig(validator=1, runtimes=("h:9",)))
    for wrong in ({"runtimes": ["h"]}, {"runtimes": ["h:1"] * 33}, {"colour": 1}):
        with pytest.raises(ConfigError):
            edit_config(tmp_path, **wrong)
    assert load_config(tmp_path).runtimes == ("h:9",)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(tmp_path)


def test_a_home_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="assay node init"):
        load_config(tmp_path / "nowhere")


@pytest.mark.parametrize("setting", ["public_listen", "peer_listen", "http.listen"])
@pytest.mark.parametrize("address", ["localhost", ":80", "127.0.0.1:65536", "127.0.0.1:http"])
def test_where_nothing_can_listen_is_refused_before_the_node_starts(
    tmp_path: Path, setting: str, address: str
) -> None:
    write(tmp_path, f'validator = 0\n{setting} = "{address}"\n')
    with pytest.raises(ConfigError, match=re.escape(f"{setting}: address")):
        load_config(tmp_path)
