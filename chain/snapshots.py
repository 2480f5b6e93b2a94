"""Snapshots: a whole store as of one height, and what must hold before one is believed.

A snapshot is a folder: `rocks/`, hard links to the database's files where the disk can (they are
never changed, so it costs next to nothing), and `manifest.json` with the SHA-256 of each file, the
height, and the roots. It can be made while the node runs.

Restoring copies into a home that has no store and no votes, and moves it into place only when every
hash is right, the chain is the genesis's, and the state root, computed anew from all rows, is the
manifest's and that of the execution root. What it does not prove is that the chain ever agreed on
that root: take a snapshot from whom you trust, or compare its execution root with what other
validators say. The vote log is not in it: a restored validator is silent until it knows what it
can sign (`consensus.memory`). Validators that lag fetch another kind, which proves itself
(`chain.state_snapshots`).
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chain.genesis import Genesis
from chain.node.worker import open_ledger
from chain.state import StateError
from chain.store import DATABASE_NAME, FORMAT_VERSION, STORE_NAME, Store, StoreError

MANIFEST_NAME: Final = "manifest.json"
MANIFEST_VERSION: Final = 1
MANIFEST_BYTES_MAX: Final = 64 << 20
FILES_MAX: Final = 100_000
COPY_BYTES: Final = 1 << 20
HASH_PATTERN: Final = "^[0-9a-f]{64}$"
NAME_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$"
LOG_PREFIX: Final = "LOG"
"""RocksDB's own diary, which is no data."""


class SnapshotError(Exception):
    """A snapshot cannot be made or cannot be believed. The message says why and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SnapshotFile(_Strict):
    """One file of the database."""

    name: str = Field(pattern=NAME_PATTERN)
    size: int = Field(ge=0)
    sha256: str = Field(pattern=HASH_PATTERN)


class Manifest(_Strict):
    """What a snapshot says of itself; hashes in hex."""

    version: int
    store_format: int
    chain_id: str
    genesis: str = Field(pattern=HASH_PATTERN)
    height: int = Field(ge=0)
    execution_root: str = Field(pattern=HASH_PATTERN)
    state_root: str = Field(pattern=HASH_PATTERN)
    files: tuple[SnapshotFile, ...] = Field(max_length=FILES_MAX, strict=False)


def create_snapshot(store: Store, genesis: Genesis, output: Path) -> Manifest:
    """Write a snapshot of the store as it is now into a new folder.

    Raises SnapshotError if the folder holds something, StoreError if the store has no state.
    """
    if output.exists() and any(output.iterdir()):
        raise SnapshotError(f"{output} is not empty; give a new folder")
    output.mkdir(parents=True, exist_ok=True)
    database = output / DATABASE_NAME
    head = store.link_to(database)
    state_root = store.state_root_at(head.height)
    if state_root is None:
        raise SnapshotError(f"block {head.height} has no state root; the store is damaged")
    files = []
    for path in sorted(database.iterdir()):
        if path.name.startswith(LOG_PREFIX):
            path.unlink()
        else:
            files.append(
                SnapshotFile(name=path.name, size=path.stat().st_size, sha256=_sha256(path))
            )
    manifest = Manifest(
        version=MANIFEST_VERSION,
        store_format=FORMAT_VERSION,
        chain_id=genesis.chain_id,
        genesis=genesis.digest().hex(),
        height=head.height,
        execution_root=head.execution_root.hex(),
        state_root=state_root.hex(),
        files=tuple(files),
    )
    # Last, so that a folder with a manifest is a whole snapshot.
    unfinished = output / f"{MANIFEST_NAME}.unfinished"
    unfinished.write_text(manifest.model_dump_json(indent=1))
    _sync(unfinished)
    unfinished.rename(output / MANIFEST_NAME)
    _sync(output)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a snapshot. Raises SnapshotError."""
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MANIFEST_BYTES_MAX:
            raise SnapshotError(f"{path} is larger than {MANIFEST_BYTES_MAX} bytes")
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise SnapshotError(f"no {path}: not a snapshot, or one that was not finished") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SnapshotError(f"{path} is no manifest: {where}: {first['msg']}") from error


def restore_snapshot(folder: Path, data: Path, genesis: Genesis) -> Manifest:
    """Make the store in a home's data folder from a snapshot.

    Raises SnapshotError if the data folder is in use already, or if anything of the snapshot is
    not as its manifest and the genesis say; the data folder is then as it was.
    """
    manifest = read_manifest(folder)
    _check_manifest(manifest, genesis)
    if data.exists() and any(data.iterdir()):
        raise SnapshotError(
            f"{data} is not empty: a snapshot goes only into a home that has never run; make a new "
            "home, or move the old data away"
        )
    data.mkdir(parents=True, exist_ok=True)
    unfinished = data / f"{STORE_NAME}.unfinished"
    try:
        (unfinished / DATABASE_NAME).mkdir(parents=True)
        for file in manifest.files:
            _copy_checked(folder / DATABASE_NAME, unfinished / DATABASE_NAME, file)
        _check_restored(unfinished, manifest, genesis)
        _sync(unfinished / DATABASE_NAME)
        unfinished.rename(data / STORE_NAME)
        _sync(data)
    except (StoreError, StateError) as error:
        raise SnapshotError(f"{folder} does not hold what its manifest says: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _check_manifest(manifest: Manifest, genesis: Genesis) -> None:
    expected = (MANIFEST_VERSION, FORMAT_VERSION)
    if (manifest.version, manifest.store_format) != expected:
        raise SnapshotError(
            f"the snapshot has versions {manifest.version} and {manifest.store_format}, this "
            f"program reads {MANIFEST_VERSION} and {FORMAT_VERSION}: use the program that wrote it"
        )
    if (manifest.chain_id, manifest.genesis) != (genesis.chain_id, genesis.digest().hex()):
        raise SnapshotError(
            f"the snapshot is of chain {manifest.chain_id}, the genesis of {genesis.chain_id}; "
            "take one of the same chain"
        )
    if len({file.name for file in manifest.files}) != len(manifest.files):
        raise SnapshotError("the manifest names a file twice")


def _copy_checked(source: Path, target: Path, file: SnapshotFile) -> None:
    digest = hashlib.sha256()
    size = 0
    try:
        with (source / file.name).open("rb") as reader, (target / file.name).open("xb") as writer:
            while chunk := reader.read(COPY_BYTES):
                size += len(chunk)
                digest.update(chunk)
                writer.write(chunk)
                if size > file.size:
                    break
            writer.flush()
            os.fsync(writer.fileno())
    except FileNotFoundError as error:
        raise SnapshotError(f"{source / file.name} is missing; fetch the snapshot again") from error
    if (size, digest.hexdigest()) != (file.size, file.sha256):
        raise SnapshotError(
            f"{source / file.name} is not the file of the manifest (SHA-256 {digest.hexdigest()}, "
            f"{size} bytes or more); fetch the snapshot again"
        )


def _check_restored(path: Path, manifest: Manifest, genesis: Genesis) -> None:
    """Raise SnapshotError or StoreError unless the copied rows are those of the manifest's root."""
    with Store(path, genesis.chain_id, genesis.digest(), background=False) as store:
        height, execution_root = store.height, store.execution_root
        if height is None or execution_root is None:
            raise SnapshotError("the snapshot's store has no state")
        found = (height, execution_root.hex())
        if found != (manifest.height, manifest.execution_root):
            raise SnapshotError(
                f"the rows are of height {height} with execution root {found[1]}, the manifest "
                f"says {manifest.height} and {manifest.execution_root}"
            )
        ledger = open_ledger(genesis, store)
        state_root = ledger.state_root().hex()
        if state_root != manifest.state_root:
            raise SnapshotError(
                f"the rows hash to state root {state_root}, the manifest says {manifest.state_root}"
            )
        _check_link(store, height, execution_root, ledger.state_root())


def _check_link(store: Store, height: int, execution_root: bytes, state_root: bytes) -> None:
    """Raise SnapshotError unless the execution root commits to this state root."""
    stored = store.block_by_height(height)
    previous = store.execution_root_at(height - 1) if height else None
    if stored is None or previous is None:
        if height:
            raise SnapshotError(f"block {height} or the root before it is missing")
        return
    if stored.link.state_root != state_root or stored.link.extend(previous) != execution_root:
        raise SnapshotError(f"the execution root of height {height} is not that of its state root")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
