"""The reference engine: Llama-family models in float32, bit for bit the same on every machine.

What it is for: the embedded default engine, and the arbiter whose scores are facts. It trades the
last factor of speed for one promise: the logits of a token depend on the package and the tokens
before it, and on nothing else; not on CPU, vector width, thread count, block size, or on prefill
against decoding.

Rules:
- Every sum has one order: products are added for input index 0, 1, 2, ... to a sum that starts at
  +0. Vector lanes and threads only ever hold different outputs.
- No fused multiply-add and no fast-math flag; exp, sin, cos and log come from `runtime.maths`.
- Weights are dequantized to float32 by the package's own format rules, then never rounded again.

Parts: `weights` (package files to packed arrays), `arrays` (their layout), `products`, `attention`
and `forward` (the kernels), `model` (key and value cache of one sequence, and a step of the model
over a block of its tokens), `engine` (the protocol).

Data: token ids -> embedding -> layers in `forward_block` -> logits rows -> `runtime.sampling`.
It must never import chain, consensus, or anything of the service (`runtime.service`,
`runtime.scheduler`).
"""
