"""Running the forward pass: the caches of sequences, and the threads that share a pass."""

from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from runtime.intrinsics import PANEL
from runtime.model_config import ModelConfig
from runtime.reference.arrays import Cache, Scratch, Shape, Span, Weights
from runtime.reference.forward import forward_pass
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


@dataclass(frozen=True, slots=True)
class Extension:
    """Tokens to append to a sequence, and from which of them on logits are wanted."""

    sequence: Sequence
    token_ids: Items[int]
    first_logit_row: int

    @property
    def logit_rows(self) -> int:
        """How many rows of logits it gives."""
        return max(len(self.token_ids) - self.first_logit_row, 0)


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

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights that a pass over one token reads, the embedding table left out."""
        weights = self._weights
        matrices = (weights.qkv, weights.output, weights.gate_up, weights.down, weights.head)
        return sum(array.nbytes for matrix in matrices for array in matrix)

    def sequence(self, capacity: int) -> Sequence:
        """An empty sequence with room for `capacity` tokens."""
        return Sequence(self.shape, capacity)

    def extend(self, sequence: Sequence, token_ids: Items[int], first_logit_row: int) -> np.ndarray:
        """Append tokens and return logits after each from the `first_logit_row`-th of them on.

        Returns float32[len(token_ids) - first_logit_row, vocabulary rounded up to 16]; columns
        beyond the vocabulary are minus infinity. Raises ValueError when the tokens do not fit or
        are not valid ids.
        """
        return self.extend_together([Extension(sequence, token_ids, first_logit_row)])[0]

    def extend_together(self, extensions: Items[Extension]) -> list[np.ndarray]:
        """`extend` of several different sequences in one pass over the weights; the same bits."""
        if len({id(extension.sequence) for extension in extensions}) != len(extensions):
            raise ValueError("a sequence can be extended once in a pass")
        tokens = np.concatenate([self._checked_tokens(extension) for extension in extensions])
        spans, logit_rows = self._layout(extensions)
        logits = np.empty((logit_rows.size, self.shape.vocabulary_padded), np.float32)
        self._run(tokens, spans, logit_rows, logits)
        ends = np.cumsum([extension.logit_rows for extension in extensions])
        for extension in extensions:
            extension.sequence.length += len(extension.token_ids)
        return np.split(logits, ends[:-1])

    def _checked_tokens(self, extension: Extension) -> np.ndarray:
        sequence = extension.sequence
        tokens = np.asarray(extension.token_ids, np.int64)
        rows = tokens.size
        if not 0 < rows <= sequence.cache.capacity - sequence.length:
            raise ValueError(f"{rows} tokens after {sequence.length} do not fit the cache")
        if sequence.length + rows > self.config.context_tokens:
            raise ValueError(f"{sequence.length + rows} tokens exceed the context")
        if tokens.min() < 0 or tokens.max() >= self.shape.vocabulary:
            raise ValueError("a token id is outside the vocabulary")
        return tokens

    def _layout(self, extensions: Items[Extension]) -> tuple[np.ndarray, np.ndarray]:
        """Spans and logit rows as the kernel takes them."""
        spans, logit_rows, row = [], list[int](), 0
        for extension in extensions:
            rows = len(extension.token_ids)
            sequence = extension.sequence
            spans.append(
                Span(
                    first_row=row,
                    rows=rows,
                    start=sequence.length,
                    capacity=sequence.cache.capacity,
                    keys_address=sequence.cache.keys.ctypes.data,
                    values_address=sequence.cache.values.ctypes.data,
                )
            )
            logit_rows += range(row + extension.first_logit_row, row + rows)
            row += rows
        return np.array(spans, np.int64), np.array(logit_rows, np.int64)

    def _run(
        self, tokens: np.ndarray, spans: np.ndarray, logit_rows: np.ndarray, logits: np.ndarray
    ) -> None:
        scratch = self._scratch(tokens.size, int(spans[:, Span._fields.index("capacity")].max()))
        barrier = np.zeros(1, np.int64)

        def run(part: int) -> None:
            forward_pass(
                tokens,
                spans,
                logit_rows,
                self.shape,
                self._weights,
                scratch,
                self._epsilon,
                logits.reshape(-1),
                part,
                self._threads,
                barrier,
            )

        if self._helpers is None:
            run(0)
            return
        others = [self._helpers.submit(run, part) for part in range(1, self._threads)]
        run(0)
        for other in others:
            other.result()

    def _scratch(self, rows: int, capacity: int) -> Scratch:
        shape, parts = self.shape, self._threads
        query_width = shape.heads * shape.head_width
        widest = max(self.config.qkv_width, 2 * shape.feed_width, shape.width)
        deepest = max(shape.width, query_width, shape.feed_width)
        return Scratch(
            hidden=np.empty(rows * shape.width, np.float32),
            normed=np.empty(parts * rows * shape.width, np.float32),
            projected=np.empty(rows * widest, np.float32),
            attended=np.empty(rows * query_width, np.float32),
            active=np.empty(rows * shape.feed_width, np.float32),
            scores=np.empty(parts * GROUP * capacity, np.float32),
            panel=np.empty(parts * deepest * PANEL, np.float32),
        )

    def close(self) -> None:
        """End the helper threads; the model is of no use afterwards."""
        if self._helpers is not None:
            self._helpers.shutdown()
