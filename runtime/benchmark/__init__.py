"""What inference costs on this machine: `assay bench runtime PACKAGE`.

What it is for: measuring generation and verification of one engine with so many requests in
flight, and what public-seed sampling and evidence add to the plain engine, in a way that a shared
machine disturbs least.

Words:
- variant: one way to generate. The first of an engine is its plain one; `provider` is what the
  service does: public seed, evidence, text.
- overhead: what a variant costs a token over what another costs, in the same round.
- round: every variant and the verification of what `provider` made, for each number in flight, one
  after the other; each second round goes through the variants backwards. What else the machine
  does falls on all alike, and ratios are taken inside a round.
- wall and CPU: seconds on the clock, and processor seconds of this process and of all it started. A
  busy machine stretches the first much more than the second.

Way of the data: `cli` opens a `subjects.Subject` (an engine with its variants), `rounds` runs it
between readings of `meters`, `costs` turns these into medians, least and greatest, `report` says
what they were taken on, `plots` draws. `kernels` measures the reference engine against memory and
BLAS, `products` the matrix products under vLLM.

Outputs have exactly the asked length: nothing ends one early. Must never import chain or consensus,
nor, before the verb runs, numba, torch or vllm: vLLM's engine core imports the main module first.
"""
