"""The OpenAI-compatible gateway: HTTP in front, the chain behind, one purchase a question.

Its way: HTTP request -> `access` (whose key) -> `questions` (JSON to a RequestInference, or a clear
no) -> `purchases` (reserve, sign once, follow) -> `replies` (JSON, server-sent events) -> `app`.

Rules:
- Nothing is bought that is not in the `book` first: the signed transaction is written down with
  what it may cost at most before any node sees it. A crash can lose an answer's delivery, never
  count, and a retry with the same Idempotency-Key sends the same transaction again, which the
  ledger takes once.
- A purchase lives apart from the connection that asked for it: who hangs up is charged once, and
  finds the answer by retrying, or its receipt.
- What the protocol cannot do is refused by name, never ignored. An error has OpenAI's shape, a
  stable code (`chain.rejections`, or `errors.GatewayReason`) and says what to do.
- An answer that was not streamed is a verified one. A streamed one ends with `finish_reason` only
  when the chain has ruled; else with an error.
- All is bounded: bodies, purchases under way, connections, what is remembered.

Spending caps and expiry of API keys are held by this process, not by the chain.

Must never import: `chain.cli`, `chain.node`.
"""
