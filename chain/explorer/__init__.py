"""The explorer: a page that a node serves, and the small read-only API under it.

- `routes`: what a browser may ask, by HTTP: `/` and its files, JSON under `/api`, and server-sent
  events. Every list is bounded, callers are limited by address, nothing can be changed.
- `readings`: the answers, from the node's own stores and views; those that everybody asks for are
  read once a block, however many ask.
- `feed`: what happens, block by block, to whoever listens; a listener too slow is let go.
- `values`: messages and records as JSON. Bytes are hexadecimal, accounts addresses, and numbers of
  64 bits texts, since JavaScript would round them.
- `page/`: the built page, from `web/` by `make web`; absent where it was not built, and said so.
- `schema`: what the page's verifier must know of our formats, for its build.

The page checks receipts in the browser, against a genesis that its user names: what this package
answers is looked at there, and never believed.

Must never import: `chain.cli`, `runtime`.
"""
