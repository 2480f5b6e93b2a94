"""Calibration: what an honest result may score, and which frauds that catches. All of it measured.

What it is for: `assay model calibrate PACKAGE` has a provider's engine answer a corpus of requests,
honestly and in every way of cheating known here, and has a verifier's engine score the answers. It
fits the thresholds a model is registered with on one half of the jobs, and reports on the other.

Words:
- job: one request of the corpus with its public seed; its hash decides in which part it lies.
- fraud: a way to cheat; `honest` is the one that does not.
- transcript: the answer of one provider to one job under one fraud.
- replay: what a verifier found at each output position of a transcript (`runtime.scoring`'s
  columns), from which the scores of every shorter prefix follow.
- evidence: two kinds, kept apart. Distances of log-probabilities, which a forger can forge by
  prefilling the true model; replay margins, which nobody can.
- e-value: a factor whose mean is at most 1 for an honest job; the product over audited jobs
  reaches 10^6 for an honest provider with a probability of at most 10^-6 in its whole life.

Way of the data: `corpus` -> (`frauds`, `alterations`, `steering`) -> `stages` (JSONL, resumable)
-> `evidence` -> `thresholds` and `eprocess` on the fitting part -> `report` (JSON) and `plots` on
the other. `pipeline` does it in this order; `sides` are the engines behind it; `cli` is the verb.

What consensus will see is integers: thresholds in units of 2^-20 nats, logarithms of e-values in
the same. Floats are of this package's own statistics and decide nothing on chain.

Must never import: chain, consensus.
"""
