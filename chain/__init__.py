"""The chain: a ledger, the node round it, and everything that people touch.

What it is for: to turn ordered batches into a state that everybody shares, to carry inference jobs
from request to settlement, and to serve both to clients.

The rooms, from the inside out:
- `addresses`, `keys`, `keystore`: who somebody is; `genesis`, `parameters`, `tls`: what a chain is.
- `records`, `state`, `leaves`, `execution`: the ledger. Integers only, the same bits on
  every validator.
- `store`: what a validator keeps on disk, `pruning` what it forgets, `snapshots` how its files are
  carried elsewhere. `state_snapshots`, `snapshot_anchor`, `snapshot_install`: its state alone,
  which a stranger can check. `receipts`: what anyone can check offline.
- `runtime_client`, `runtime_replies`: the way to an inference runtime, which is never trusted.
  `runtime_pool`, `runtime_member`: several of them as one.
- `node`: one validator's process. `client`, `asking`, `dapp`, `gateway`, `cli`, `devnet`: what its
  users hold.

A transaction's way: signed bytes -> `transactions.check_signed` -> `node.intake` -> own lane ->
consensus -> `execution.Ledger.execute` -> `store.commit_block` -> receipts and events.

Words: a grain is the smallest amount (10^9 are one ASY); a job is one inference request; a provider
answers it; verifiers audit the answer; a receipt proves the outcome.

Must never import: `runtime`, which is reached over gRPC only.
"""
