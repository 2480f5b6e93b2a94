"""Ordering: which bytes are final, in which order, and the proof of it. Sans-IO.

A driver (the node, or `consensus.sim`) owns clock, network, disk and threads. It drives one
`Replica`: `step(event, now_ms) -> effects`, and performs the effects in order. The same events
give the same effects.

Words. A *lane* is one validator's hash chain of *batches*; an *availability proof* says that
somebody honest holds a lane up to a batch. A *cut* names the newest final batch of each lane; a
*block* carries a cut. A *view* is one leader's turn. A *certificate* is votes of one kind by more
than two thirds of the stake: it notarizes a block, nullifies a view, or finalizes a block.

Rules (Simplex). In a view a validator votes at most once to notarize, and only for a block whose
parent is certified, with every view between nullified. Seeing a notarization it votes to
finalize, unless it voted to nullify this view. **Never both nullify and finalize in one view;
never two notarize votes in a view; not after a restart either**: a vote is in the WAL before it
is sent. Two quorums share an honest validator, so a view with a finalized block has no
nullification, and every later block builds on it.

Way of the data: payload -> `lanes` (seal, check, ack, prove) -> `simplex` (propose, vote,
certify) -> `delivery` (wait for batches, hand over in height order) -> the driver executes and
says `Executed`; the execution root comes back in a later block, so validators agree on results,
too.

Every limit is a named constant beside its rule. Everything received is adversarial: unsigned,
unknown or far-ahead values are dropped, and buffers are bounded per peer.

Never import `chain` or `runtime` here, nor generated stubs, sockets, threads, clocks or
randomness.
"""
