"""What a dApp asks the chain with: any of several nodes, and one question followed to its receipt.

Rules:
- A question is signed once. Whatever fails, the same transaction goes to the next node; the ledger
  takes an id once, so no failure buys twice.
- A node is believed for the moment only. Tokens need the assigned provider's signature, and what
  counts is the receipt, which is checked against genesis if there is one. Text is told once: a
  reader of `Tokens` has the result on chain, letter by letter, or has been told `Restarted`.

`client` is what an application uses, also by the names `assay.Client` and `assay.AsyncClient`;
`nodes` chooses and rests nodes; `following` turns one signed question into the events of `events`;
`transcript` keeps what the reader already has.

The gateway stands on the same. Must never import: `chain.node`'s services, `chain.cli`.
"""
