"""The native hot path: bytes and numbers in, bytes and numbers out.

What it is for: the few operations that a validator repeats for every transaction, written in C
behind small Cython modules so that they run without the interpreter lock.

    hashing       SHA-256 and the one domain-separated hash of the chain
    merkle        RFC 6962-shaped trees: roots, proofs, verification
    signatures    the only place where an Ed25519 signature is checked
    ed25519       the rule behind it (ZIP-215), one signature or many; call ``signatures`` instead
    transactions  batch payload bytes straight from the wire into arrays
    bodies        what those transactions say, where all they do is transfer
    ledger        the tables each transaction touches: accounts, and ids that may not come twice
    transfers     runs of transfers over both, with their receipts and events

Rules: total on any input (a hostile length, offset or encoding ends in a typed error or False,
never in a read out of bounds); the same answer on every machine, whichever instructions it has; no
state between calls but in the objects of ``ledger`` and ``transfers``, each with a lock; the
interpreter's lock is released as soon as the work is worth it.

Words: a *digest* is 32 bytes; a *leaf hash* is a digest that stands in a tree as a leaf; a *tag* is
the short name that keeps two uses of the hash apart; a *row's number* is its place in its table and
in the table's tree; a body is *plain* when a run of transfers can execute it.

Data flow: callers hand in buffers, C reads them in place, results come back as new bytes or numpy
arrays.

Must never import: ``chain``, ``consensus``, ``runtime``, ``assay``.
"""
