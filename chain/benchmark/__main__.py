"""One of several processes of `assay bench ledger --validators N`; not for people."""

import sys

from chain.benchmark.processes import child

if __name__ == "__main__":
    child(sys.argv[1])
