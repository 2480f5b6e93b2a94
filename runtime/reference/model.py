"""Running the forward pass: the cache of one sequence, and the threads that share a block."""

from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from runtime.intrinsics import PANEL
from runtime.model_config import ModelConfig
from runtime.reference.arrays import Cache, Scratch, Shape, Weights
from runtime.reference.forward import forward_block
from runtime.reference.products import GROUP
from runtime.reference.weights import shape_of

MAX_THREADS = 64


class Sequence:
    """Keys and values of one sequence of at most `capacity` tokens.

    Memory is reserved, not touched: pages become real as tokens are written.
    """

    __slots__ = ("cache", "length")

    def __init__(self, shape: Shape, capacity: int) -> None:
        rounded = -(-capacity // PANEL) * PANEL
        size = shape.layers * shape.kv_heads * shape.head_width * rounded
        self.cache = Cache(np.empty(size, np.float32), np.empty(size, np.float32), rounded)
        self.length = 0


class Model:
    """Weights, and the threads that use them. `close` ends the threads."""

    def __init__(self, config: ModelConfig, weights: Weights, threads: int = 1) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"threads is {threads}, allowed is 1 to {MAX_THREADS}")
        self.config = config
        self.shape = shape_of(config)
        self._weights = weights
        self._epsilon = np.float32(config.rms_epsilon)
        self._threads = threads
        self._helpers = ThreadPoolExecutor(threads - 1, "reference-engine") if threads > 1 else None

    @property
    def cache_bytes_per_token(self) -> int:
        """Key and value memory of one token."""
        return 8 * self.shape.layers * self.shape.kv_heads * self.shape.head_width

    def sequence(self, capacity: int) -> Sequence:
        """An empty sequence with room for `capacity` tokens."""
        return Sequence(self.shape, capacity)

    def extend(self, sequence: Sequence, token_ids: Items[int], first_logit_row: int) -> np.ndarray:
        """Append tokens and return logits after each from the `first_logit_row`-th of them on.

        Returns float32[len(token_ids) - first_logit_row, vocabulary rounded up to 16]; columns
        beyond the vocabulary are minus infinity. Raises ValueError when the tokens do not fit or
        are not valid ids.
        """
        tokens = np.asarray(token_ids, np.int64)
        rows, parts, shape = tokens.size, self._threads, self.shape
        if not 0 < rows <= sequence.cache.capacity - sequence.length:
            raise ValueError(f"{rows} tokens after {sequence.length} do not fit the cache")
        if sequence.length + rows > self.config.context_tokens:
            raise ValueError(f"{sequence.length + rows} tokens exceed the context")
        if tokens.min() < 0 or tokens.max() >= shape.vocabulary:
            raise ValueError("a token id is outside the vocabulary")
        logit_rows = max(rows - first_logit_row, 0)
        logits = np.empty((logit_rows, shape.vocabulary_padded), np.float32)
        scratch = self._scratch(rows, sequence.cache.capacity)
        barrier = np.zeros(1, np.int64)

        def run(part: int) -> None:
            forward_block(
                tokens,
                sequence.length,
                shape,
                self._weights,
                sequence.cache,
                scratch,
                self._epsilon,
                first_logit_row,
                logits.reshape(-1),
                part,
                parts,
                barrier,
            )

        if self._helpers is None:
            run(0)
        else:
            others = [self._helpers.submit(run, part) for part in range(1, parts)]
            run(0)
            for other in others:
                other.result()
        sequence.length += rows
        return logits

    def _scratch(self, rows: int, capacity: int) -> Scratch:
        shape, parts = self.shape, self._threads
        widest = max(self.config.qkv_width, 2 * shape.feed_width, shape.width)
        return Scratch(
            hidden=np.empty(rows * shape.width, np.float32),
            normed=np.empty(parts * rows * shape.width, np.float32),
            projected=np.empty(rows * widest, np.float32),
            attended=np.empty(rows * shape.heads * shape.head_width, np.float32),
            active=np.empty(rows * shape.feed_width, np.float32),
            scores=np.empty(parts * GROUP * capacity, np.float32),
        )

    def close(self) -> None:
        """End the helper threads; the model is of no use afterwards."""
        if self._helpers is not None:
            self._helpers.shutdown()
