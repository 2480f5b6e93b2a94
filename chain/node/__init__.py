"""One validator's process.

The parts, and who talks to whom:
- `server`: the process; public gRPC, health, reflection, signals. `services`, `inference`, `views`,
  `errors`, `unreadable`: the public API in terms of the node.
- `node`: puts everything together and owns the event loop's side of it.
- `driver`: steps the consensus core and performs its effects, durable things before spoken ones.
- `peers`: mutual TLS to the other validators; votes never wait for batches (`traffic`). `arrivals`:
  what has come, in fair order; each peer is read no further than its `backlog` allows.
  `streams`: tokens on their way to callers.
- `shelf`, `snapshot_service`: snapshots for those that are far behind; `joining`: when it is this
  node that is.
- `worker`: the ledger's own thread. `recovery`: from what is on disk to a replica.
- `ingress`: clients' requests, checked as arrays by the thousand. `intake`: what they and the
  agents brought, until it is sealed into the own lane. `rate_limit`: dear calls, by connection.
- `provider`, `verifier`, `duties`: the agents that earn: answer, audit, and keep the offer
  standing.

Rules:
- The event loop never waits for the disk, the ledger, or a model: those have threads or processes.
- Nothing is sent before what it depends on is durable.
- Whatever arrives is bounded, decoded and authenticated before consensus or the ledger sees it.
- A failed part stops the node: half a validator is worse than none.

Must never import: `runtime`; nor `chain.cli`.
"""
