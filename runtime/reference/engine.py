"""The reference engine behind the engine protocol."""

from collections.abc import Generator, Sequence

import numpy as np

from runtime.detokenizer import EndRules, GrowingOutput
from runtime.engine import (
    SEED_BYTES,
    Completion,
    InferenceInput,
    RequestError,
    RequestReason,
    SamplingRule,
    SharedPass,
    Step,
    TokenInput,
    Verification,
)
from runtime.packages import (
    REFERENCE_PROFILE,
    REFERENCE_Q8_PROFILE,
    ModelPackage,
    PackageError,
    ProgressCallback,
)
from runtime.reference.model import Extension, Model
from runtime.reference.weights import load_weights
from runtime.replay import REPLAY_COLUMNS, replay_rows
from runtime.sampling import rule_array, sample_rows
from runtime.scoring import (
    check_positions,
    claim_shape,
    fingerprint,
    score,
    score_ending,
)
from runtime.sources import TEMPLATE_NAME, TOKENIZER_NAME
from runtime.tokenizer import PackageTokenizer

PROFILES = (REFERENCE_PROFILE, REFERENCE_Q8_PROFILE)
"""What this engine can be."""
BLOCK_TOKENS = 48
"""Tokens of one prefill step: what a scheduler waits for before another job has its turn."""
MAX_PASS_TOKENS = 64
"""Tokens of one pass that several generations share: a block of one's prompt, and a token each of
16 others; or a token each of 64."""


class ReferenceEngine:
    """One package in memory. Use from one thread; many generators may be under way, taking
    turns."""

    def __init__(
        self,
        package: ModelPackage,
        model: Model,
        tokenizer: PackageTokenizer,
        profile: str = REFERENCE_PROFILE,
    ) -> None:
        self._package = package
        self._profile = profile
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = frozenset(model.config.end_token_ids)

    @classmethod
    def load(
        cls,
        package: ModelPackage,
        threads: int = 1,
        progress: ProgressCallback | None = None,
        profile: str | None = None,
    ) -> "ReferenceEngine":
        """Read the weights and get ready. Raises PackageError.

        `profile` is one of PROFILES the package is registered for; by default the first of them
        that its manifest names.
        """
        registered = package.manifest.engine_profiles
        wanted = PROFILES if profile is None else (profile,)
        chosen = next((name for name in registered if name in wanted and name in PROFILES), None)
        if chosen is None:
            raise PackageError(
                f"{package.manifest.name}: registered for {registered}, "
                f"this engine is {' or '.join(wanted)}"
            )
        config = package.config()

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress("reading weights", done, total)

        tokenizer = PackageTokenizer(
            package.file_bytes(TOKENIZER_NAME), package.file_bytes(TEMPLATE_NAME).decode(), config
        )
        weights = load_weights(config, package.tensors(), report, chosen)
        return cls(package, Model(config, weights, threads), tokenizer, chosen)

    @property
    def package(self) -> ModelPackage:
        """The package this engine runs."""
        return self._package

    @property
    def profile(self) -> str:
        """The name of its arithmetic."""
        return self._profile

    @property
    def context_tokens(self) -> int:
        """Most tokens of input and output together."""
        return self._model.config.context_tokens

    @property
    def vocabulary(self) -> int:
        """Token ids run from 0 to one less."""
        return self._model.config.vocabulary

    @property
    def model(self) -> Model:
        """The forward pass, for who wants logits."""
        return self._model

    @property
    def cache_bytes_per_token(self) -> int:
        """Memory one token of a running sequence takes."""
        return self._model.cache_bytes_per_token

    def close(self) -> None:
        """End the engine's threads."""
        self._model.close()

    def tokenize(self, request: InferenceInput) -> list[int]:
        """See `Engine.tokenize`."""
        ids = self._tokenizer.encode(request)
        self._check_length(len(ids))
        return ids

    def _check_length(self, input_tokens: int) -> None:
        if input_tokens >= self.context_tokens:
            raise RequestError(
                RequestReason.OVER_CONTEXT,
                f"the input has {input_tokens} tokens; this model's context of "
                f"{self.context_tokens} leaves room for {self.context_tokens - 1}",
            )

    def _check(self, prompt_ids: Sequence[int], seed: bytes) -> list[int]:
        if len(seed) != SEED_BYTES:
            raise RequestError(
                RequestReason.BAD_SEED, f"the seed has {len(seed)} bytes, must have {SEED_BYTES}"
            )
        return self.tokenize(TokenInput(tuple(prompt_ids)))

    def _end_rules(self, input_tokens: int, sampling: SamplingRule) -> EndRules:
        limit = min(sampling.max_output_tokens, self.context_tokens - input_tokens)
        return EndRules(sampling.stop, self._end_ids, limit, sampling.min_tokens)

    def generate(
        self, prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes
    ) -> Generator[Step | None, None, Completion]:
        """See `Engine.generate`."""
        work = self.generate_together(prompt_ids, sampling, seed)
        try:
            while True:
                try:
                    item = next(work)
                except StopIteration as stop:
                    completion: Completion = stop.value
                    return completion
                if not isinstance(item, SharedPass):
                    yield item
                    continue
                item.run_with(())
        finally:
            work.close()

    def generate_together(
        self, prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes
    ) -> Generator[Step | SharedPass | None, None, Completion]:
        """See `SharingEngine.generate_together`."""
        prompt = self._check(prompt_ids, seed)
        rules = self._end_rules(len(prompt), sampling)
        sequence = self._model.sequence(len(prompt) + rules.limit)
        rule = rule_array(sampling, seed, self._end_ids)
        start = 0
        while len(prompt) - start > BLOCK_TOKENS:
            block = prompt[start : start + BLOCK_TOKENS]
            yield _ModelPass(self._model, Extension(sequence, block, BLOCK_TOKENS))
            start += BLOCK_TOKENS
            yield None
        pending = prompt[start:]
        output = GrowingOutput(self._tokenizer.token_bytes, rules)
        token_ids: list[int] = []
        logprobs: list[int] = []
        pieces: list[str] = []
        while not output.ended:
            turn = _ModelPass(self._model, Extension(sequence, pending, len(pending) - 1))
            yield turn
            token_id, logprob = _sample(turn.logits, len(token_ids), rule)
            token_ids.append(token_id)
            logprobs.append(logprob)
            pending = [token_id]
            pieces.append(output.push(token_id))
            yield Step(token_id, logprob, pieces[-1])
        pieces.append(output.finish())
        return Completion(
            tuple(token_ids),
            tuple(logprobs),
            output.finish_reason,
            len(prompt),
            "".join(pieces),
            self.profile,
        )

    def verify(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingRule,
        seed: bytes,
        claim: Completion,
        fingerprint_positions: Sequence[int],
    ) -> Generator[None, None, Verification]:
        """See `Engine.verify`."""
        prompt = self._check(prompt_ids, seed)
        rules = self._end_rules(len(prompt), sampling)
        shape = claim_shape(claim, self.vocabulary, rules.limit)
        check_positions(fingerprint_positions, len(claim.token_ids))
        readable = claim.token_ids[: shape.readable]
        replay = yield from self.replay(prompt, sampling, seed, readable)
        ending = score_ending(claim, shape, self._tokenizer.token_bytes, rules)
        scores = score(claim, shape, replay, len(prompt), ending)
        return Verification(scores, fingerprint(replay, fingerprint_positions), self.profile)

    def replay(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingRule,
        seed: bytes,
        token_ids: Sequence[int],
    ) -> Generator[None, None, np.ndarray]:
        """int64[len(token_ids), REPLAY_COLUMNS], a row for each output position, as `replay_rows`
        fills it.

        Token ids must be valid and fit the context. Yields after each block of prefill.
        """
        replay = np.zeros((len(token_ids), REPLAY_COLUMNS), np.int64)
        # The logits after the last token of the input are those of output position 0.
        inputs = [*prompt_ids, *token_ids[:-1]]
        first_scored = len(prompt_ids) - 1
        sequence = self._model.sequence(len(inputs))
        rule = rule_array(sampling, seed, self._end_ids)
        for start in range(0, len(inputs) if token_ids else 0, BLOCK_TOKENS):
            block = inputs[start : start + BLOCK_TOKENS]
            skipped = min(max(first_scored - start, 0), len(block))
            logits = self._model.extend(sequence, block, skipped)
            if len(logits):
                position = start + skipped - first_scored
                replay_rows(
                    logits,
                    position,
                    rule,
                    np.array(token_ids[position : position + len(logits)], np.int64),
                    replay[position : position + len(logits)],
                )
            yield None
        return replay


class _ModelPass(SharedPass):
    """Tokens to be appended to one sequence."""

    def __init__(self, model: Model, extension: Extension) -> None:
        self.model = model
        self.extension = extension
        self._logits: np.ndarray | None = None

    @property
    def logits(self) -> np.ndarray:
        """float32[rows asked for, padded vocabulary], once the pass was run."""
        if self._logits is None:
            raise RuntimeError("a generation was resumed before its pass was run")
        return self._logits

    def run_with(self, others: Sequence[SharedPass]) -> Sequence[SharedPass]:
        """See `SharedPass.run_with`: at most MAX_PASS_TOKENS tokens together."""
        members = [self]
        tokens = len(self.extension.token_ids)
        for other in others:
            if isinstance(other, _ModelPass) and other.model is self.model:
                more = len(other.extension.token_ids)
                if tokens + more <= MAX_PASS_TOKENS:
                    tokens += more
                    members.append(other)
        logits = self.model.extend_together([member.extension for member in members])
        for member, rows in zip(members, logits, strict=True):
            member._logits = rows
        return members


def _sample(logits: np.ndarray, position: int, rule: np.ndarray) -> tuple[int, int]:
    token_ids, logprobs = np.empty(1, np.int64), np.empty(1, np.int64)
    sample_rows(logits, position, rule, token_ids, logprobs)
    return int(token_ids[0]), int(logprobs[0])
