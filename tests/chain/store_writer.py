"""A process that fills a store until killed: `python -m tests.chain.store_writer PATH GENESIS`.

Prints each height after it was committed. Checkpoints come every few blocks.
"""

import sys
from pathlib import Path

from chain.genesis import load
from chain.pruning import PruningPolicy
from chain.store import Store
from chain.store_checkpoint import CheckpointPolicy
from tests.chain.table_chain import TableChain

CHECKPOINT_BLOCKS = 3


def main() -> None:
    # TLS certificates are random, so the genesis comes from the test.
    genesis = load(Path(sys.argv[2]))
    pruning = PruningPolicy(keep_ms=0) if "prune" in sys.argv[3:] else PruningPolicy()
    with Store(
        Path(sys.argv[1]),
        genesis.chain_id,
        genesis.digest(),
        pruning=pruning,
        checkpoints=CheckpointPolicy(blocks=CHECKPOINT_BLOCKS),
    ) as store:
        chain = TableChain(store, genesis=genesis)
        print(chain.height, flush=True)
        while True:
            chain.commit()
            print(chain.height, flush=True)


if __name__ == "__main__":
    main()
