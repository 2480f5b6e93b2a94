"""Real validators that forget soon, and whose snapshots come in small chunks, late, or wrong.

    python -m tests.snapshot_cheats --home HOME --gate FILE [--corrupt]

`assay node start` in all else. Chunks have 16 KiB, so that the state of a small chain has several;
all but the first wait until FILE exists. With --corrupt one bit of each chunk is wrong. A node may
be told to keep as few as KEEP_BLOCKS blocks, and forgets at once.
"""

import argparse
import logging
import time
from pathlib import Path

from chain import pruning

CHUNK_BYTES = 16_384
KEEP_BLOCKS = 16
POLL_S = 0.05
GATED_S = 25.0
"""Shorter than a caller waits."""


def cheat(gate: Path, corrupt: bool) -> None:
    """Change what this process gives away; before anything else of the chain is imported."""
    pruning.KEEP_BLOCKS_MIN = KEEP_BLOCKS  # type: ignore[misc]
    pruning.AHEAD_BLOCKS_MAX = 1  # type: ignore[misc]
    from chain import state_snapshots
    from chain.node.shelf import Shelf

    state_snapshots.CHUNK_BYTES = CHUNK_BYTES  # type: ignore[misc]
    honest = Shelf.chunk

    def chunk(self: Shelf, height: int, content: bytes, index: int) -> bytes:
        end_s = time.monotonic() + GATED_S
        while index and not gate.exists() and time.monotonic() < end_s:
            time.sleep(POLL_S)
        data = honest(self, height, content, index)
        return bytes((data[0] ^ 1,)) + data[1:] if corrupt else data

    Shelf.chunk = chunk  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--gate", type=Path, required=True)
    parser.add_argument("--corrupt", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    cheat(arguments.gate, arguments.corrupt)
    from chain.node.server import run_node

    run_node(arguments.home)


if __name__ == "__main__":
    main()
