"""A process that fills a store until killed: `python -m tests.chain.store_writer PATH GENESIS`.

Prints each height after it was committed.
"""

import sys
from pathlib import Path

from chain.genesis import load
from chain.store import Store
from consensus.values import Batch, BatchHeader
from ext.hashing import sha256
from tests.chain.finished_job import Chain


def batch(sequence: int, lane: int = 0, payload: bytes = b"payload") -> Batch:
    header = BatchHeader(0, lane, sequence, sha256(bytes([sequence % 256])), sha256(payload))
    return Batch(header, bytes(64), payload)


def main() -> None:
    # TLS certificates are random, so the genesis comes from the test.
    genesis = load(Path(sys.argv[2]))
    with Store(Path(sys.argv[1]), genesis.chain_id, genesis.digest()) as store:
        chain = Chain.start(store, genesis)
        while True:
            store.put_batch(batch(chain.height + 1), sync=False)
            chain.commit()
            print(chain.height, flush=True)


if __name__ == "__main__":
    main()
