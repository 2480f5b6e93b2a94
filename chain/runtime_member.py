"""One runtime of a pool: in or out, why and until when, how busy, and what it serves.

A runtime is *in* while its probes are answered: health says that it produces tokens, and the list
of its models can be true. It goes *out* when it is absent (a red or missing health) or when it
failed a request (garbage, silence, an engine that broke), and is asked again after a back-off that
grows with each time in a row. After failed requests a probe lets it back *on trial*: one request at
a time, until one succeeds.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from chain.runtime_client import (
    HEALTH_DEADLINE_S,
    RuntimeClient,
    RuntimeRefusedError,
    RuntimeUnavailableError,
    Unavailability,
)
from chain.runtime_replies import ModelInfo, RuntimeReplyError

BACK_OFF_GROWTH = 2.0
BACK_OFF_JITTER = 0.2
"""Each delay is stretched by up to this part of itself, so that many nodes do not return as one."""
BACK_OFF_DOUBLINGS_MAX = 32
BUSY_RETRY_S = 0.25
"""How long a full runtime is left alone when it does not say so itself."""
BUSY_RETRY_MAX_S = 30.0
REASON_CHARACTERS_MAX = 300
"""Of what is logged and shown; part of it is a runtime's own words."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolBounds:
    """How long, how often, how many. Durations in seconds."""

    probe_interval_s: float = 1.0
    probe_deadline_s: float = HEALTH_DEADLINE_S
    """For the health call and for the list of models, each."""
    late_probes_max: int = 2
    """A runtime is out after so many unanswered probes in a row: one may be late on a busy
    machine. A red answer counts at once."""
    retry_first_s: float = 0.5
    absent_retry_max_s: float = 2.0
    failed_retry_max_s: float = 60.0
    forgive_after_s: float = 60.0
    """In for so long, a runtime's earlier failures do not lengthen its next back-off."""
    progress_s: float = 30.0
    """A generation that yields nothing for so long is given to another runtime."""
    silence_fault_s: float = 10.0
    """Silence for so long is a fault, if nothing was queued; a shorter one only moves the request,
    for a deadline may be short and a step of the engine long."""
    wall_time_s: float = 900.0
    """No request takes longer, whatever its caller allows."""
    in_flight_max: int = 64
    """Requests of this pool at one runtime."""
    waiting_max: int = 256
    """Requests that wait for any runtime at all."""
    attempts_max: int = 6
    """Times that one request is given to a runtime: some requests break whom they reach."""

    @property
    def hang_bound_s(self) -> float:
        """A runtime that stops answering is out after at most this long."""
        probe_s = self.probe_interval_s + 2 * self.probe_deadline_s
        return self.late_probes_max * probe_s


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What status shows of one runtime."""

    address: str
    healthy: bool
    detail: str
    """Why it is out; empty if it is in."""
    in_flight: int
    """Requests of this node it works on now."""
    queued: int
    """Requests of anybody that waited there at the last probe."""
    running: int
    models: tuple[bytes, ...]


class BackOff:
    """Growing delays with jitter, until reset."""

    def __init__(self, first_s: float, max_s: float, jitter: random.Random) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter
        self.times = 0

    def next_delay_s(self) -> float:
        """The delay after one more time."""
        growth = BACK_OFF_GROWTH ** min(self.times, BACK_OFF_DOUBLINGS_MAX)
        self.times += 1
        delay_s = min(self._first_s * growth, self._max_s)
        return delay_s * (1 + BACK_OFF_JITTER * self._jitter.random())

    def reset(self) -> None:
        """Begin again with the first delay."""
        self.times = 0


class Member:
    """One runtime and what its pool knows of it. `changed` is called when it goes in or out."""

    def __init__(
        self,
        client: RuntimeClient,
        bounds: PoolBounds,
        clock: Callable[[], float],
        jitter: random.Random,
        changed: Callable[[], None],
    ) -> None:
        self.client = client
        self.address = client.target
        self.trouble = "not asked yet"
        """Why it is out; empty while it is in."""
        self.models: dict[bytes, ModelInfo] | None = None
        """None until it was asked once."""
        self.in_flight = 0
        self.last_used_s = 0.0
        self.busy_until_s = 0.0
        self.on_trial = False
        self._bounds = bounds
        self._clock = clock
        self._changed = changed
        self._absences = BackOff(bounds.retry_first_s, bounds.absent_retry_max_s, jitter)
        self._failures = BackOff(bounds.retry_first_s, bounds.failed_retry_max_s, jitter)
        self._in_since_s = 0.0
        self._retry_at_s = 0.0
        self._late_probes = 0
        self._load_of_others = 0

    @property
    def healthy(self) -> bool:
        """Whether it is in."""
        return not self.trouble

    @property
    def load(self) -> int:
        """Requests known to be there: our own now, and those of others at the last probe."""
        return self.in_flight + self._load_of_others

    @property
    def queued(self) -> int:
        """Requests that waited there at the last probe."""
        return max((info.queued for info in (self.models or {}).values()), default=0)

    @property
    def running(self) -> int:
        """Requests that ran there at the last probe."""
        return max((info.running for info in (self.models or {}).values()), default=0)

    def may_serve(self, model: bytes, profile: str | None) -> bool:
        """Whether it serves the model with this engine profile (None: any), or may, because it
        never told."""
        if self.models is None:
            return True
        info = self.models.get(model)
        return info is not None and profile in (None, info.engine_profile)

    def is_free(self) -> bool:
        """Whether it takes another request now."""
        at_most = 1 if self.on_trial else self._bounds.in_flight_max
        return self.healthy and self.in_flight < at_most and self._clock() >= self.busy_until_s

    def state(self) -> RuntimeState:
        """What status shows."""
        return RuntimeState(
            address=self.address,
            healthy=self.healthy,
            detail=self.trouble,
            in_flight=self.in_flight,
            queued=self.queued,
            running=self.running,
            models=tuple(self.models or ()),
        )

    def succeeded(self) -> None:
        """It answered a request as it should."""
        self._failures.reset()
        self.on_trial = False

    def failed(self, why: str) -> None:
        """It broke on a request, or said what can't be true. One fault that fails many requests
        at once counts once."""
        if self.healthy:
            if self._clock() - self._in_since_s > self._bounds.forgive_after_s:
                self._failures.reset()
            self._take_out(why, self._failures)

    def silent(self, why: str, silence_s: float) -> None:
        """It did not answer for so long. Behind a queue that is no fault; the queue is part of its
        load."""
        if silence_s >= self._bounds.silence_fault_s and not self.queued:
            self.failed(why)

    def lost(self, why: str) -> None:
        """A request found it gone; many that find it so at once count once."""
        if self.healthy:
            self._take_out(why, self._absences)

    def busy(self, retry_after_s: float | None) -> None:
        """It is well, and full."""
        delay_s = BUSY_RETRY_S if retry_after_s is None else min(retry_after_s, BUSY_RETRY_MAX_S)
        self.busy_until_s = self._clock() + delay_s

    def next_probe_in_s(self) -> float:
        """How long until it should be asked again."""
        if self.healthy:
            return self._bounds.probe_interval_s
        return max(0.0, self._retry_at_s - self._clock())

    async def probe(self) -> None:
        """Ask for health and models, and let it in or take it out accordingly."""
        # Its back-off may have been set while the last delay went by.
        if not self.healthy and self._clock() < self._retry_at_s:
            return
        in_flight = self.in_flight
        try:
            await self.client.check_health(self._bounds.probe_deadline_s)
            models = await self.client.models(self._bounds.probe_deadline_s)
        except RuntimeUnavailableError as error:
            self._probe_failed(error)
            return
        except (RuntimeRefusedError, RuntimeReplyError) as error:
            self._take_out(f"probe: {error}", self._failures)
            return
        self._late_probes = 0
        self.models = {info.model: info for info in models}
        self._load_of_others = max(0, self.queued + self.running - in_flight)
        self._let_in()

    def _probe_failed(self, error: RuntimeUnavailableError) -> None:
        if error.cause is Unavailability.BUSY and self.healthy:
            self.busy(error.retry_after_s)
            return
        late = error.cause is Unavailability.OUT_OF_TIME
        self._late_probes = self._late_probes + 1 if late else 0
        if late and self.healthy and self._late_probes < self._bounds.late_probes_max:
            return
        why = f"no answer within {self._bounds.probe_deadline_s} s" if late else str(error)
        self._take_out(why, self._absences)

    def _let_in(self) -> None:
        self._absences.reset()
        if self.healthy or self._clock() < self._retry_at_s:
            return
        logger.info("runtime %s is in; it was out: %s", self.address, self.trouble)
        self.trouble = ""
        self.on_trial = self._failures.times > 0
        self._in_since_s = self._clock()
        self._changed()

    def _take_out(self, why: str, back_off: BackOff) -> None:
        why = " ".join(why.split())[:REASON_CHARACTERS_MAX]
        delay_s = back_off.next_delay_s()
        self._retry_at_s = self._clock() + delay_s
        if self.healthy:
            logger.warning(
                "runtime %s is out: %s; asked again in %.1f s", self.address, why, delay_s
            )
        self.trouble = why or "no reason given"
        self._changed()
