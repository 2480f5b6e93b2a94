"""`assay config`: what a validator's node.toml says, with and without what it leaves out."""

from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from chain import genesis as genesis_file
from chain.cli.output import JsonOption, emit, errors_reported, fail
from chain.node.config import CONFIG_FILE_NAME, ConfigError, NodeConfig, load_config, read_config

app = typer.Typer(help="Look at a validator's settings.", no_args_is_help=True)
HomeOption = Annotated[Path, typer.Option("--home", help="The validator's home, with node.toml.")]


@app.command()
def show(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every setting, those that node.toml leaves out with their defaults."""
    values = _values(_read(home, as_json))
    emit(as_json, values, tomli_w.dumps(_without_none(values)).rstrip())


@app.command()
def check(home: HomeOption, as_json: JsonOption = False) -> None:
    """Whether the node would start with this file: types, unknown keys, genesis, keys."""
    from chain.node.signer import load_keys

    path = home / CONFIG_FILE_NAME
    with errors_reported(as_json):
        try:
            config = load_config(home)
            genesis = genesis_file.load(config.genesis)
            load_keys(config.keys, genesis, config.validator)
        except ConfigError as error:
            fail(as_json, "BAD_CONFIG", str(error))
    value = {"file": str(path), "chain_id": genesis.chain_id, "validator": config.validator}
    text = f"{path} is good: validator {config.validator} of {genesis.chain_id}"
    emit(as_json, value, text)


@app.command()
def diff(home: HomeOption, as_json: JsonOption = False) -> None:
    """The settings that are not the defaults, each with the default."""
    config = _read(home, as_json)
    defaults = _flat(_values(NodeConfig(validator=config.validator)))
    changed = {
        name: {"value": value, "default": defaults.get(name)}
        for name, value in _flat(_values(config)).items()
        if value != defaults.get(name)
    }
    lines = [
        f"{name} = {item['value']!r}  (default {item['default']!r})"
        for name, item in changed.items()
    ]
    emit(as_json, changed, "\n".join(lines) if lines else "all settings are the defaults")


def _read(home: Path, as_json: bool) -> NodeConfig:
    try:
        return read_config(home / CONFIG_FILE_NAME)
    except ConfigError as error:
        fail(as_json, "BAD_CONFIG", str(error))


def _values(config: NodeConfig) -> dict[str, Any]:
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
