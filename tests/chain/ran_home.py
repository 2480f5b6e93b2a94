"""A validator's home that has run, with a real store, vote log and keys."""

from pathlib import Path

from chain import genesis as genesis_file
from chain.devnet import create_devnet
from chain.node.config import load_config
from chain.node.worker import open_ledger
from chain.store import STORE_NAME, Store
from consensus.wal import FileDirectory, Wal


def make_home(folder: Path, name: str = "devnet", runs: bool = True) -> Path:
    """A store at genesis and an empty vote log, unless it never ran; nothing runs."""
    create_devnet(folder, 1, name=name)
    home = folder / "validator-0"
    if runs:
        config = load_config(home)
        genesis = genesis_file.load(config.genesis)
        path = config.data / STORE_NAME
        with Store(path, genesis.chain_id, genesis.digest(), background=False) as store:
            open_ledger(genesis, store)
        directory = FileDirectory(config.data / "votes")
        Wal.open(directory, genesis.chain_id, genesis.validators[0].signing_key, create=True)
        directory.close()
    return home
