"""A node's settings: one TOML file, typed, unknown keys refused.

Relative paths are taken from the folder the file lies in, so that a home directory can be moved.
"""

import tomllib
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from chain.listening import listen_address, split_host_port
from chain.pruning import KEEP_BLOCKS_MIN, PruningPolicy
from chain.transactions import SUBMIT_BYTES_MAX

CONFIG_FILE_NAME = "node.toml"
RUNTIMES_MAX = 32


def _addresses(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"an address is named twice in {', '.join(values)}")
    for value in values:
        split_host_port(value)
    return values


class ConfigError(Exception):
    """The operator's file needs mending; the message says where and how."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyFiles(_Section):
    """Where the validator's secrets are."""

    signing: Path = Path("keys/signing.json")
    vrf: Path = Path("keys/vrf.json")
    account: Path = Path("keys/account.json")
    next_signing: Path | None = None
    """A key that takes over in the epoch whose set names it."""
    next_vrf: Path | None = None
    passphrase_file: Path = Path("keys/passphrase")
    tls_key: Path = Path("keys/tls.key.pem")
    tls_certificate: Path = Path("keys/tls.cert.pem")


class ProviderSettings(_Section):
    """Whether this node's account offers inference, and at what price."""

    enabled: bool = True
    model: str = ""
    """Model id in hex; empty takes the runtime's first registered model."""
    input_price: int = Field(default=1_000, ge=0)
    """Grain for one input token."""
    output_price: int = Field(default=10_000, ge=0)
    """Less than some 3,000 does not pay for the transaction that carries a short answer."""
    capacity: int = Field(default=4, ge=1, le=1024)
    stake: int = Field(default=1_000_000_000_000, ge=0)
    """Grain the node keeps staked behind the offer; what verifying needs comes on top."""


class StorageSettings(_Section):
    """What to forget: a block stays if either setting keeps it. Without both, all is kept."""

    keep_blocks: int | None = Field(default=None, ge=KEEP_BLOCKS_MIN)
    keep_ms: int | None = Field(default=None, ge=0)
    """By block time; the last KEEP_BLOCKS_MIN blocks stay whatever their age."""

    def policy(self) -> PruningPolicy:
        """The same, as the store wants it."""
        return PruningPolicy(self.keep_blocks, self.keep_ms)


class SnapshotSettings(_Section):
    """What this node offers to validators that are far behind, and when it is one."""

    every_blocks: int = Field(default=16_384, ge=0)
    """A snapshot at each multiple of this height, the same for all validators, so that one that
    joins may fetch from many. The newest two stay, with all blocks above them. 0: none."""
    use_when_behind_blocks: int = Field(default=8_192, ge=1)
    """Fetch a snapshot that is so much above the own newest block, instead of the blocks; or any
    that is above it, when the others have pruned the next block."""


class SubmitSettings(_Section):
    """How often one connection may call Submit, which costs as much as hundreds of transactions of
    SubmitMany."""

    per_second: int = Field(default=200, ge=1)
    burst: int = Field(default=400, ge=1)
    """Calls that a connection may make at once after a pause."""


class CallSettings(_Section):
    """How many calls that wait for something (Wait, Infer, Subscribe) may be open."""

    open_max: int = Field(default=4096, ge=1)
    open_max_by_client: int = Field(default=1024, ge=1)
    """By address, whatever the port."""


def _dialled(values: dict[str, str]) -> dict[str, str]:
    for index in values:
        if not index.isdecimal():
            raise ValueError(f"{index!r} is no index of a validator")
    _addresses(tuple(values.values()))
    return values


def _listen(value: str) -> str:
    listen_address(value)
    return value


def _listen_or_nothing(value: str) -> str:
    return _listen(value) if value else value


class HttpSettings(_Section):
    """The HTTP server: /metrics, /livez, /readyz, and the pages that the node serves."""

    listen: Annotated[str, AfterValidator(_listen_or_nothing)] = ""
    """HOST:PORT; empty: none. It has no passwords: what it shows is for all who reach it."""


class NodeConfig(_Section):
    """Everything `assay node start` reads."""

    validator: int = Field(ge=0)
    """Its id: the index in genesis, or the one given when it registered."""
    genesis: Path = Path("genesis.json")
    data: Path = Path("data")
    public_listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:0"
    peer_listen: Annotated[str, AfterValidator(_listen_or_nothing)] = ""
    """Empty takes this validator's address from genesis."""
    peer_addresses: Annotated[dict[str, str], AfterValidator(_dialled)] = {}
    """HOST:PORT to dial instead of genesis' address, by index of the validator: where a peer has
    moved, or is reached through a tunnel. Who answers there must still hold its TLS key."""
    runtimes: Annotated[
        tuple[str, ...], Field(max_length=RUNTIMES_MAX), AfterValidator(_addresses)
    ] = ()
    """HOST:PORT of each inference runtime; none: this node neither provides nor verifies."""
    keys: KeyFiles = KeyFiles()
    provider: ProviderSettings = ProviderSettings()
    storage: StorageSettings = StorageSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    submit: SubmitSettings = SubmitSettings()
    calls: CallSettings = CallSettings()
    http: HttpSettings = HttpSettings()
    verifier: bool = True
    """Whether this validator audits results of models its runtime serves."""
    batch_interval_ms: int = Field(default=20, ge=1, le=1000)
    batch_bytes: int = Field(default=256 * 1024, ge=1024, le=1024 * 1024)
    pending_bytes_max: int = Field(default=64 * 1024 * 1024, ge=SUBMIT_BYTES_MAX)
    """Bytes of transactions checked or held until sealed; beyond it submitters get BUSY."""


def load_config(home: Path) -> NodeConfig:
    """Read `home/node.toml` and resolve its paths against `home`. Raises ConfigError."""
    config = read_config(home / CONFIG_FILE_NAME)
    keys = config.keys.model_copy(
        update={name: home / value for name, value in config.keys if isinstance(value, Path)}
    )
    return config.model_copy(
        update={"keys": keys, "genesis": home / config.genesis, "data": home / config.data}
    )


def edit_config(home: Path, **values: object) -> None:
    """Change top-level settings in `home/node.toml`. Raises ConfigError."""
    config = read_config(home / CONFIG_FILE_NAME)
    path = home / CONFIG_FILE_NAME
    save_config(home, _validated(path, {**config.model_dump(), **values}))


def save_config(home: Path, config: NodeConfig) -> None:
    """Write `home/node.toml`; paths stay as given."""
    values = config.model_dump(mode="json", exclude_none=True)
    (home / CONFIG_FILE_NAME).write_text(tomli_w.dumps(values))


def read_config(path: Path) -> NodeConfig:
    """The file's own words, paths as they stand in it. Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"no {path}; write one with 'assay node init'") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _validated(path, values)


def make_config(path: Path, **values: object) -> NodeConfig:
    """Settings that are to stand in a file of this name. Raises ConfigError."""
    return _validated(path, values)


def _validated(path: Path, values: dict[str, object]) -> NodeConfig:
    try:
        return NodeConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {_problem(item['type'], item['msg'])}"
            for item in error.errors()
        )
        raise ConfigError(f"{path}: {problems}") from error


def _problem(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "nobody knows this key; 'assay config show' lists all there are"
    return message.removeprefix("Value error, ")
