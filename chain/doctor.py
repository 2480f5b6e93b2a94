"""Looks at a validator's home directory from outside and says what is wrong with it.

Each check looks at one thing and yields findings, each with what to do. Nothing is changed: a store
is opened only when no node has it, and a vote log is only read. Beside a running node what its lock
guards is left out, and its own word about its readiness is asked for instead.
"""

import enum
import fcntl
import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chain import genesis as genesis_file
from chain.genesis import Genesis, GenesisError
from chain.listening import listen_address
from chain.node.config import ConfigError, NodeConfig, load_config
from chain.node.epochs import engine_epoch
from chain.node.health import DISK_FREE_BYTES_LEAST, DISK_FREE_BYTES_LOW
from chain.node.recovery import VOTES_FOLDER
from chain.node.signer import load_keys
from chain.store import LOCK_FILE_NAME, STORE_NAME, Store, StoreError
from consensus.memory import NO_QUORUM_WITHOUT
from consensus.wal import WAL_NAME, inspect

CLOCK_AHEAD_MS_MAX: Final = 2_000
"""What validators tolerate of a block's timestamp."""
CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 * 1024


class Level(enum.StrEnum):
    """How bad a finding is."""

    FINE = "fine"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at."""

    check: str
    level: Level
    reason: str
    detail: str
    advice: str = ""
    """What to do; empty if nothing is wrong."""


def examine(home: Path, now_ms: int | None = None) -> list[Diagnosis]:
    """Everything there is to say of a home, in the order in which a start would stumble over it."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        config = load_config(home)
    except ConfigError as error:
        return [_error("config", "BAD_CONFIG", str(error), "mend node.toml: assay config check")]
    found = [_fine("config", f"validator {config.validator}, data in {config.data}")]
    try:
        genesis = genesis_file.load(config.genesis)
    except (GenesisError, OSError) as error:
        advice = "fetch the genesis of your chain from another operator, and compare its digest"
        return [*found, _error("genesis", "BAD_GENESIS", str(error), advice)]
    found.append(_fine("genesis", f"{genesis.chain_id}, digest {genesis.digest().hex()}"))
    runs = _is_locked(config.data / STORE_NAME / LOCK_FILE_NAME)
    found += _keys(config, genesis)
    found += _vote_log(config, genesis)
    found += _running(config) if runs else _store(config, genesis, now_ms)
    found += _disk(config.data)
    found += _clock(genesis, now_ms)
    found += _ports(config, genesis, runs)
    found += _runtimes(config)
    return found


def worst(found: list[Diagnosis]) -> Level:
    """The highest level among findings."""
    order = list(Level)
    return max((item.level for item in found), key=order.index, default=Level.FINE)


def _fine(check: str, detail: str) -> Diagnosis:
    return Diagnosis(check, Level.FINE, "OK", detail)


def _warning(check: str, reason: str, detail: str, advice: str) -> Diagnosis:
    return Diagnosis(check, Level.WARNING, reason, detail, advice)


def _error(check: str, reason: str, detail: str, advice: str) -> Diagnosis:
    return Diagnosis(check, Level.ERROR, reason, detail, advice)


def _keys(config: NodeConfig, genesis: Genesis) -> Iterator[Diagnosis]:
    files = [path for _, path in config.keys if isinstance(path, Path)]
    for path in files:
        if path.exists() and path.stat().st_mode & 0o077:
            advice = f"chmod 600 {path}"
            yield _warning("keys", "KEY_READABLE", f"others may read {path}", advice)
    try:
        load_keys(config.keys, genesis, config.validator)
    except ConfigError as error:
        advice = "restore keys/ from your backup, or derive it anew from the mnemonic"
        yield _error("keys", "BAD_KEYS", str(error), advice)
        return
    fit = "are whole" if genesis.parameters.epoch_blocks else "fit the genesis"
    yield _fine("keys", f"all {len(files)} files of validator {config.validator} {fit}")


def _vote_log(config: NodeConfig, genesis: Genesis) -> Iterator[Diagnosis]:
    path = config.data / VOTES_FOLDER / WAL_NAME
    if not path.exists():
        if (config.data / STORE_NAME).exists():
            validators = genesis.validator_set()
            others = validators.stake_total - validators.weight({config.validator})
            yield _error(
                "votes",
                "VOTES_MISSING",
                f"there is a store and no {path}: what this key has signed is unknown",
                "put the log back from where it was moved, never an older copy of it; without it "
                "the node votes only once its peers have shown it past all it can have signed "
                "(docs/decisions/0023)"
                + (f"; {NO_QUORUM_WITHOUT}" if others < validators.quorum_stake else ""),
            )
        else:
            yield _fine("votes", "none yet: the first start makes the log")
        return
    found = inspect(path.read_bytes())
    if found.damage is not None:
        yield _error(
            "votes",
            "VOTES_DAMAGED",
            f"{path}: {found.damage}",
            "the node will follow and not vote; look at it with 'assay wal inspect', find out "
            "what the disk did, and do not delete it",
        )
        return
    if found.chain_id != genesis.chain_id or found.signing_key not in _signing_keys(
        config, genesis
    ):
        yield _error(
            "votes",
            "VOTES_FOREIGN",
            f"{path} belongs to chain {found.chain_id} and another key or chain than this home's",
            "put this validator's own log back",
        )
        return
    in_epoch = f"epoch {found.epoch}, " * (genesis.parameters.epoch_blocks > 0)
    torn = f"; {found.torn_bytes} bytes torn at its end, which is harmless" * bool(found.torn_bytes)
    yield _fine("votes", f"{in_epoch}{len(found.groups)} groups, {found.size} bytes{torn}")


def _signing_keys(config: NodeConfig, genesis: Genesis) -> tuple[bytes | None, ...]:
    """Those that this home's log may be of: with epochs whichever of its own the ledger names."""
    if not genesis.parameters.epoch_blocks:
        return (genesis.validators[config.validator].signing_key,)
    try:
        keys = load_keys(config.keys, genesis, config.validator)
    except ConfigError:
        return ()
    held = (keys.signing, keys.next_signing)
    return tuple(key.public_key for key in held if key is not None)


def _running(config: NodeConfig) -> Iterator[Diagnosis]:
    yield _fine("node", "runs: its store is left alone")
    if not config.http.listen:
        yield _fine("ready", "not asked: [http] listen is not set in node.toml")
        return
    url = f"http://{config.http.listen}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            body = answer.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(ANSWER_BYTES_MAX)
    except OSError as error:
        advice = "the process hangs or is just starting: look at its log, then restart it"
        yield _error("ready", "NO_ANSWER", f"{url}: {error}", advice)
        return
    try:
        told = json.loads(body)
        against = [(Level.ERROR, item) for item in told["reasons"]]
        for level, item in against + [(Level.WARNING, item) for item in told["notes"]]:
            yield Diagnosis("ready", level, item["reason"], item["detail"], item["advice"])
        if told["ready"]:
            yield _fine("ready", f"{url} says so")
    except (ValueError, KeyError, TypeError):
        advice = "another process may have this port; see [http] in node.toml"
        yield _error("ready", "NO_ANSWER", f"{url} is not a node's", advice)


def _store(config: NodeConfig, genesis: Genesis, now_ms: int) -> Iterator[Diagnosis]:
    path = config.data / STORE_NAME
    if not path.is_dir():
        yield _fine("store", f"none in {path}: the first start makes it")
        return
    try:
        store = Store(path, genesis.chain_id, genesis.digest(), background=False)
    except StoreError as error:
        advice = "restore a snapshot into a new home, and keep the old one for study"
        yield _error("store", "BAD_STORE", str(error), advice)
        return
    with store:
        height = store.height
        block = store.final_block(store.final_height)
        detail = (
            f"height {height}, final {store.final_height}, pruned through {store.pruned_through}"
            + f", epoch {engine_epoch(genesis, height or 0)}"
            * (genesis.parameters.epoch_blocks > 0)
        )
    yield _fine("store", detail)
    if block is not None and block[0].timestamp_ms > now_ms + CLOCK_AHEAD_MS_MAX:
        yield _error(
            "clock",
            "CLOCK_BEHIND",
            f"this machine's clock is {(block[0].timestamp_ms - now_ms) / 1000:.0f} s behind the "
            "newest block in the store",
            "set the clock by NTP (timedatectl set-ntp true), then start the node",
        )


def _disk(data: Path) -> Iterator[Diagnosis]:
    place = data if data.exists() else data.parent
    free = shutil.disk_usage(place).free
    detail = f"{free >> 20} MiB free for {data}"
    advice = (
        "free space, set keep_blocks in [storage], or use a larger disk; then 'assay node prune'"
    )
    if free < DISK_FREE_BYTES_LEAST:
        yield _error("disk", "DISK_FULL", detail, advice)
    elif free < DISK_FREE_BYTES_LOW:
        yield _warning("disk", "DISK_LOW", detail, advice)
    elif not os.access(place, os.W_OK):
        yield _error(
            "disk", "NOT_WRITABLE", f"{place} can't be written to", "chown it to this user"
        )
    else:
        yield _fine("disk", detail)


def _clock(genesis: Genesis, now_ms: int) -> Iterator[Diagnosis]:
    if genesis.genesis_time_ms > now_ms + CLOCK_AHEAD_MS_MAX:
        yield _error(
            "clock",
            "BEFORE_GENESIS",
            f"the chain begins {(genesis.genesis_time_ms - now_ms) / 1000:.0f} s from now, by "
            "this machine's clock",
            "wait, or set the clock by NTP",
        )
    else:
        yield _fine("clock", "behind no block that this home knows")


def _ports(config: NodeConfig, genesis: Genesis, runs: bool) -> Iterator[Diagnosis]:
    peer = config.peer_listen
    if not peer and config.validator < len(genesis.validators):
        peer = genesis.validators[config.validator].address
    settings = (
        ("public_listen", config.public_listen),
        ("peer_listen", peer),
        ("http.listen", config.http.listen),
    )
    for name, address in settings:
        if not address or address.endswith(":0"):
            continue
        host, port = listen_address(address)
        if runs and not _answers(host, port):
            advice = "the node is starting, or hangs: look at its log"
            yield _error("ports", "PORT_SILENT", f"{name} {address} does not answer", advice)
        elif not runs and (why := _cannot_bind(host, port)):
            advice = f"stop the process that has it, or change {name} in node.toml"
            yield _error("ports", "PORT_TAKEN", f"{name} {address}: {why}", advice)
        else:
            yield _fine("ports", f"{name} {address} {'answers' if runs else 'is free'}")


def _runtimes(config: NodeConfig) -> Iterator[Diagnosis]:
    for address in config.runtimes:
        if _answers(*listen_address(address)):
            yield _fine("runtimes", f"{address} answers")
        else:
            advice = "start it (assay runtime serve), or take it out of 'runtimes' in node.toml"
            yield _warning("runtimes", "RUNTIME_OUT", f"{address} does not answer", advice)


def _is_locked(path: Path) -> bool:
    """Whether another process holds a lock; the file is not made."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _answers(host: str, port: int) -> bool:
    with suppress(OSError), closing(socket.create_connection((host, port), CONNECT_S)):
        return True
    return False


def _cannot_bind(host: str, port: int) -> str:
    """Why a port can't be listened on; empty if it can."""
    try:
        with closing(socket.create_server((host, port))):
            return ""
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
