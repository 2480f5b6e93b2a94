"""A small deterministic engine for tests of what stands round an engine.

Its vocabulary is the printable ASCII characters and an end token; the next token is a digest of the
seed, the prompt and the output so far. `hold` makes it hang inside a step, as a real engine may.
"""

import hashlib
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.engine import (
    ChatInput,
    Completion,
    FinishReason,
    InferenceInput,
    RequestError,
    RequestReason,
    SamplingRule,
    Scores,
    Step,
    TextInput,
    Verification,
)
from runtime.packages import Manifest, ModelPackage
from runtime.scoring import OPENING_TOKENS, doubt_of

FIRST_CHARACTER = 32
VOCABULARY = 95
CONTEXT_TOKENS = 4096


def tiny_package(name: str = "tiny") -> ModelPackage:
    manifest = Manifest(
        name=name,
        architecture="tiny",
        quantization="none",
        engine_profiles=("tiny-exact",),
        context_tokens=CONTEXT_TOKENS,
        vocabulary=VOCABULARY,
        parameters=1,
        files=(),
    )
    return ModelPackage(Path(), manifest, hashlib.sha256(name.encode()).digest())


@dataclass
class TinyEngine:
    package: ModelPackage = field(default_factory=tiny_package)
    profile: str = "tiny-exact"
    context_tokens: int = CONTEXT_TOKENS
    vocabulary: int = VOCABULARY
    step_s: float = 0.0
    hold_at: int | None = None
    """Hang so before an answer's token of this number, from 0, until `release`."""
    failure: Exception | None = None
    closed: int = 0
    """Generators closed before their end."""

    def __post_init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self.held = threading.Event()

    def hold(self) -> None:
        """Hang in the next step, until `release`."""
        self.held.clear()
        self._free.clear()

    def release(self) -> None:
        self.hold_at = None
        self._free.set()

    def tokenize(self, request: InferenceInput) -> list[int]:
        if isinstance(request, TextInput):
            text = request.text
        elif isinstance(request, ChatInput):
            text = "\n".join(message.content for message in request.messages)
        else:
            return self._checked(list(request.ids))
        return self._checked([(ord(c) - FIRST_CHARACTER) % VOCABULARY for c in text])

    def _checked(self, ids: list[int]) -> list[int]:
        if not ids:
            raise RequestError(RequestReason.EMPTY_INPUT, "the prompt has no token")
        if len(ids) >= self.context_tokens:
            raise RequestError(RequestReason.OVER_CONTEXT, f"the prompt has {len(ids)} tokens")
        if max(ids) >= self.vocabulary:
            raise RequestError(RequestReason.BAD_TOKEN_ID, f"token id {max(ids)}")
        return ids

    def _step(self) -> None:
        if not self._free.is_set():
            self.held.set()
            self._free.wait()
        if self.step_s:
            time.sleep(self.step_s)
        if self.failure is not None:
            raise self.failure

    def _next(
        self, prompt_ids: Sequence[int], output: Sequence[int], rule: SamplingRule, seed: bytes
    ) -> Step:
        used_seed = seed if rule.temperature_milli else b""
        history = self.package.model_id + bytes(prompt_ids) + b"|" + bytes(output)
        digest = hashlib.sha256(used_seed + history).digest()
        token_id = digest[0] % VOCABULARY
        return Step(
            token_id, -int.from_bytes(digest[1:3], "little"), chr(FIRST_CHARACTER + token_id)
        )

    def generate(
        self, prompt_ids: Sequence[int], sampling: SamplingRule, seed: bytes
    ) -> Generator[Step | None, None, Completion]:
        steps: list[Step] = []
        try:
            self._step()
            yield None
            room = min(sampling.max_output_tokens, self.context_tokens - len(prompt_ids))
            while len(steps) < room:
                if len(steps) == self.hold_at:
                    self.hold()
                self._step()
                steps.append(self._next(prompt_ids, [s.token_id for s in steps], sampling, seed))
                yield steps[-1]
        except GeneratorExit:
            self.closed += 1
            raise
        return Completion(
            token_ids=tuple(step.token_id for step in steps),
            logprobs=tuple(step.logprob for step in steps),
            finish_reason=FinishReason.LENGTH,
            input_tokens=len(prompt_ids),
            text="".join(step.text for step in steps),
            engine_profile=self.profile,
        )

    def verify(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingRule,
        seed: bytes,
        claim: Completion,
        fingerprint_positions: Sequence[int],
    ) -> Generator[None, None, Verification]:
        own = []
        for position in range(len(claim.token_ids)):
            self._step()
            output = [token_id % VOCABULARY for token_id in claim.token_ids[:position]]
            own.append(self._next(prompt_ids, output, sampling, seed))
            yield None
        wrong = sum(s.token_id != t for s, t in zip(own, claim.token_ids, strict=True))
        distances = [abs(s.logprob - p) for s, p in zip(own, claim.logprobs, strict=False)]
        return Verification(
            scores=Scores(
                positions=len(own),
                replay_mismatches=wrong,
                margin_max=wrong,
                margin_sum=wrong,
                distance_max=max(distances, default=0),
                distance_sum=sum(distances),
                outside_candidates=0,
                doubt_sum=sum(doubt_of(step.logprob) for step in own),
                input_tokens=len(prompt_ids),
                finish_plausible=claim.finish_reason is FinishReason.LENGTH,
                text_matches=claim.text == "".join(step.text for step in own),
                opening_margin_sum=min(wrong, OPENING_TOKENS),
                opening_distance_sum=sum(distances[:OPENING_TOKENS]),
                opening_doubt_sum=sum(doubt_of(step.logprob) for step in own[:OPENING_TOKENS]),
            ),
            fingerprint=tuple(own[position].logprob - 1 for position in fingerprint_positions),
            engine_profile=self.profile,
        )
