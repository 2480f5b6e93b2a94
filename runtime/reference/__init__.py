"""The reference engine: Llama-family models in float32, bit for bit the same on every machine.

What it is for: the embedded default engine, and the arbiter whose scores are facts. It trades the
last factor of speed for one promise: the logits of a token depend on the package and the tokens
before it, and on nothing else; not on CPU, vector width, thread count, block size, on prefill
against decoding, or on the sequences that share a pass.

Rules:
- Every sum has one order: products are added for input index 0, 1, 2, ... to a sum that starts at
  +0. Vector lanes and threads only ever hold different outputs.
- No fused multiply-add and no fast-math flag; exp, sin, cos and log come from `runtime.maths`.
- Weights are dequantized to float32 by the package's own format rules, then never rounded again.
  Q8_0 matrices are kept packed and dequantized in the kernels, to the same floats. The profile
  reference-q8-1 rounds all matrices to 8 bits first; it is another model's arithmetic.

Parts: `weights` (package files to packed arrays), `arrays` (their layout), `products`, `attention`
and `forward` (the kernels), `model` (key and value caches of sequences, and passes of the model
over tokens of one or several), `engine` (the protocol).

Data: token ids -> embedding -> layers in `forward_block` -> logits rows -> `runtime.sampling`.
It must never import chain, consensus, or anything of the service (`runtime.service`,
`runtime.scheduler`).
"""
