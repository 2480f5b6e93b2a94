"""The inference service: a process of its own that knows models, and nothing of the chain.

What it is for: turning a request (text, chat or token ids, a sampling rule and a public 32-byte
seed) into output tokens with their log-probabilities, and recomputing somebody else's claimed
output in one prefill and scoring it. Both must give the same integers on every machine that serves
the same package.

Words:
- package: a directory of files named by a manifest with their SHA-256; its id is the manifest's
  digest.
- engine: what runs one package (`runtime.engine.Engine`); the reference engine is numba and
  float32.
- profile: the name of an engine's arithmetic; the same profile promises the same bits.
- step: one output token, or one block of prefill; engines are generators that yield after each
  step, so that one thread interleaves many jobs and a job is cancelled by closing its generator.
- score: integers in units of 2^-20 nats; an honest claim of the same profile scores zero
  everywhere.

Way of the data: request -> `templates`/`tokenizer` (ids) -> `reference` (logits) -> `sampling`
(token) -> `detokenizer` (text) -> `engine.Completion`; and a claim -> `replay` (margins) ->
`scoring` -> `engine.Verification`. Round it: `requests` checks what came in over gRPC, `scheduler`
owns the one engine thread, `readiness` asks for a token when nobody does, `service` is the server,
`cli` the verbs.

Must never import: chain, consensus. It may import ext and the generated stubs `assay.v1`.
"""
