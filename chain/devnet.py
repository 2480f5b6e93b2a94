"""A whole network on one machine: made, started, watched and stopped, as real processes.

A devnet's home holds the genesis, a funded user account, one home for each validator, and
devnet.json, which names the processes that run. Processes are recognised by pid and start time, so
that stopping a devnet never ends a stranger that was given an old pid.
"""

import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from chain import genesis as genesis_file
from chain.genesis import GenesisValidator, make_genesis
from chain.keys import KeyPair, Role, new_mnemonic
from chain.keystore import KdfCost, save_key, write_private
from chain.node.config import HttpSettings, KeyFiles, NodeConfig, edit_config, save_config
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.validator_home import create_validator

DEVNET_FILE = "devnet.json"
VALIDATORS_MAX = 31
USER_BALANCE = 1_000_000 * GRAIN_PER_ASY
VALIDATOR_BALANCE = 100_000 * GRAIN_PER_ASY
VALIDATOR_STAKE = 1_000 * GRAIN_PER_ASY
STOP_WITHIN_S = 10.0
START_WITHIN_S = 180.0
_KDF = KdfCost(passes=1, memory_kib=8 * 1024)
"""The passphrase lies beside the keys: a devnet's keys guard nothing."""


class DevnetError(Exception):
    """The devnet can't be made, started or found. The message says what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessRecord(_Record):
    """A process we started; `started_s` tells it from a later one with its pid."""

    pid: int
    started_s: float


class NodeRecord(_Record):
    """One validator."""

    index: int
    home: str
    public: str
    peer: str
    http: str = ""
    """Of metrics and pages; none in a devnet made before there were any."""
    runtimes: tuple[str, ...] = ()
    process: ProcessRecord | None = None


class RuntimeRecord(_Record):
    """One inference runtime."""

    address: str
    log: str
    process: ProcessRecord


class Devnet(_Record):
    """What devnet.json says; paths are relative to the devnet's home."""

    chain_id: str
    genesis: str = "genesis.json"
    user_key: str = "user/account.json"
    user_passphrase: str = "user/passphrase"
    nodes: tuple[NodeRecord, ...]
    runtimes: tuple[RuntimeRecord, ...] = ()


def load_devnet(home: Path) -> Devnet:
    """Read a devnet's home. Raises DevnetError."""
    path = home / DEVNET_FILE
    try:
        return Devnet.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DevnetError(
            f"no devnet in {home}; start one: assay devnet start --home {home}"
        ) from error
    except ValidationError as error:
        raise DevnetError(f"{path} can't be read: {error.errors()[0]['msg']}") from error


def save_devnet(home: Path, devnet: Devnet) -> None:
    """Write devnet.json, replacing the old one as a whole."""
    path = home / DEVNET_FILE
    part = path.with_suffix(".part")
    part.write_text(devnet.model_dump_json(indent=2) + "\n")
    part.replace(path)


def create_devnet(
    home: Path, count: int, parameters: Parameters | None = None, name: str = "devnet"
) -> Devnet:
    """Keys, genesis and homes of a new devnet of `count` validators. Raises DevnetError."""
    if not 1 <= count <= VALIDATORS_MAX:
        raise DevnetError(f"{count} validators, allowed are 1 to {VALIDATORS_MAX}")
    if (home / DEVNET_FILE).exists():
        raise DevnetError(f"{home} already holds a devnet")
    home.mkdir(parents=True, exist_ok=True)
    ports = free_ports(3 * count)
    nodes, members, balances = [], [], {}
    for index in range(count):
        folder = home / f"validator-{index}"
        peer, public, http = (f"127.0.0.1:{port}" for port in ports[3 * index : 3 * index + 3])
        member = create_validator_home(folder, index, peer)
        members.append(member)
        balances[member.account] = VALIDATOR_BALANCE
        save_config(
            folder,
            NodeConfig(
                validator=index,
                genesis=Path("../genesis.json"),
                public_listen=public,
                http=HttpSettings(listen=http),
            ),
        )
        nodes.append(NodeRecord(index=index, home=folder.name, public=public, peer=peer, http=http))
    user = KeyPair.generate()
    balances[user.public_key] = USER_BALANCE
    _save_account(home / "user", user)
    genesis = make_genesis(
        name,
        time.time_ns() // 1_000_000,
        parameters or Parameters(),
        tuple(members),
        balances,
        treasury=user.public_key,
    )
    genesis_file.save(genesis, home / "genesis.json")
    devnet = Devnet(chain_id=genesis.chain_id, nodes=tuple(nodes))
    save_devnet(home, devnet)
    return devnet


def _save_account(folder: Path, key: KeyPair) -> None:
    passphrase = secrets.token_hex(16).encode()
    write_private(folder / "passphrase", passphrase)
    save_key(folder / "account.json", key, Role.ACCOUNT, passphrase, _KDF)


def create_validator_home(folder: Path, index: int, address: str) -> GenesisValidator:
    """A validator's keys, under a passphrase of their own."""
    passphrase = secrets.token_hex(16).encode()
    write_private(folder / KeyFiles().passphrase_file, passphrase)
    return create_validator(
        folder, index, address, VALIDATOR_STAKE, new_mnemonic(), passphrase, _KDF
    )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def start_runtime(home: Path, model: Path, number: int, threads: int) -> RuntimeRecord:
    """Start an inference runtime and wait until it listens. Raises DevnetError."""
    log = home / f"runtime-{number}.log"
    port_file = home / f"runtime-{number}.port"
    port_file.unlink(missing_ok=True)
    arguments = ["runtime", "serve", "--model", str(model), "--listen", "127.0.0.1:0"]
    arguments += ["--threads", str(threads), "--port-file", str(port_file)]
    process = spawn(arguments, log)
    for _ in _until(START_WITHIN_S):
        if port_file.exists() and (port := port_file.read_text().strip()):
            return RuntimeRecord(address=f"127.0.0.1:{port}", log=log.name, process=process)
        if not alive(process):
            raise DevnetError(f"the runtime ended at start; the end of {log}:\n{tail(log)}")
    stop_processes([process])
    raise DevnetError(f"the runtime did not start within {START_WITHIN_S:.0f} s; see {log}")


def point_to_runtimes(home: Path, node: NodeRecord, addresses: Sequence[str]) -> NodeRecord:
    """Write the runtimes' addresses into a validator's node.toml; the rest of it stays."""
    edit_config(home / node.home, runtimes=tuple(addresses))
    return node.model_copy(update={"runtimes": tuple(addresses)})


def start_node(home: Path, node: NodeRecord) -> NodeRecord:
    """Start one validator's process, if it does not run."""
    if node.process is not None and alive(node.process):
        return node
    folder = home / node.home
    process = spawn(["node", "start", "--home", str(folder)], folder / "node.log")
    return node.model_copy(update={"process": process})


def spawn(arguments: Sequence[str], log: Path) -> ProcessRecord:
    """Start `assay …` in a session of its own, its output appended to a log."""
    command = Path(sys.executable).with_name("assay")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(command), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return ProcessRecord(pid=process.pid, started_s=psutil.Process(process.pid).create_time())


def alive(record: ProcessRecord) -> bool:
    """Whether that very process still runs."""
    try:
        process = psutil.Process(record.pid)
        # Its first thread may be gone while another still ends a write, and holds the locks.
        return process.create_time() == record.started_s and (
            process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
        )
    except psutil.NoSuchProcess:
        return False


def stop_processes(records: Sequence[ProcessRecord]) -> None:
    """SIGTERM, and SIGKILL for what is still there after ten seconds."""
    running = [record for record in records if alive(record)]
    for record in running:
        _signal(record, signal.SIGTERM)
    for _ in _until(STOP_WITHIN_S):
        running = [record for record in running if alive(record)]
        if not running:
            return
    for record in running:
        _signal(record, signal.SIGKILL)


def _signal(record: ProcessRecord, number: signal.Signals) -> None:
    try:
        psutil.Process(record.pid).send_signal(number)
    except psutil.NoSuchProcess:
        return


def stop_devnet(home: Path) -> int:
    """Stop every process of a devnet; returns how many ran. Raises DevnetError."""
    devnet = load_devnet(home)
    records = [node.process for node in devnet.nodes if node.process is not None]
    records += [runtime.process for runtime in devnet.runtimes]
    running = [record for record in records if alive(record)]
    stop_processes(running)
    nodes = tuple(node.model_copy(update={"process": None}) for node in devnet.nodes)
    save_devnet(home, devnet.model_copy(update={"nodes": nodes, "runtimes": ()}))
    return len(running)


def _until(seconds: float, step_s: float = 0.05) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(step_s)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
