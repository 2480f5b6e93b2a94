"""`assay bench ledger`: what one individually signed transaction costs a validator, in CPU time.

The code under measure is the node's own, in the node's order: a batch's payload is parsed, its
signatures verified, the batch made durable; a block's batches are read back, executed, and what
they changed is committed. Only the network and the votes are missing. Nothing is simulated: keys
sign, files are synced, and at the end the store is opened again and must give the same root.

Rules:
- CPU time, of the whole process and so of its background threads too; wall time beside it. On a
  shared machine only ratios within one run mean much.
- Baselines run in the same process on the same transactions: libsodium one by one, and the protobuf
  library reading every field.

Parts: `workload` (signed batches from a seed), `pipeline` (the stages, timed), `baselines`, `jobs`
(what execution costs for each step of a job), `report` (medians and spread; several processes at
once).
"""
