# SPDX-License-Identifier: Apache-2.0
"""What must not fall silent while the arms may move, and what happens when it does.

Silence is measured on the steady clock, which neither simulation nor time synchronisation moves:
every source is noted when it is heard and checked at every tick. The tracking error compares what
was sent with what was measured at about the same time.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats

SETTLED_NS = 500_000_000
"""Time after which an arm whose command rests must have come to it."""

OLDEST_MATCH_NS = 100_000_000
"""A measurement from this long before all that is remembered is compared with nothing."""


class Response(Enum):
    """What the executor does: nothing, brake softly and wait, or brake at once and latch."""

    NONE = "none"
    HOLD = "hold"
    FAULT = "fault"


class Alarm(NamedTuple):
    """One watchdog that barks."""

    name: str
    response: Response
    reason: str


@dataclass(frozen=True)
class WatchdogConfig:
    """Longest silences in s of the steady clock, and the largest tracking errors.

    joint_state_timeout_s: of either arm's joint states. controller_timeout_s: of a controller's
    own state topic, once it was heard. chunk_timeout_s: since the newest chunk, however far its rows
    reach. tracking_error: rad or m between a joint and what was sent tracking_delay_s before; gripper
    fingers stop at what they hold, so grippers are not watched. rest_error: the same for commands
    that rest: an arm further away is blocked, without power or moved by hand. After a fault or a
    silent controller half of it is asked for before anything is sent again. 0 turns a watchdog off.
    """

    joint_state_timeout_s: float = 0.2
    controller_timeout_s: float = 0.5
    chunk_timeout_s: float = 10.0
    tracking_error: float = 0.35
    tracking_delay_s: float = 0.05
    rest_error: float = 0.1

    def __post_init__(self) -> None:
        errors = ("tracking_error", "tracking_delay_s", "rest_error")
        for name in ("joint_state_timeout_s", "controller_timeout_s", "chunk_timeout_s", *errors):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, found {getattr(self, name)}; 0 turns it off")


class Watchdog:
    """Remember when each source was heard; say which has been silent for too long."""

    def __init__(self, config: WatchdogConfig, watched: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> None:
        """`watched` (joints,) is True where the tracking error counts."""
        self._config, self._watched = config, watched
        self._heard_ns: dict[tuple[str, str], int] = {}
        self._sent: deque[tuple[int, Floats]] = deque(maxlen=1024)
        self._moved_ns = 0
        self._renewed_ns: int | None = None

    def note(self, kind: str, side: str, steady_ns: int) -> None:
        """`kind` ("joint_state" or "controller") of the arm `side` was heard."""
        self._heard_ns[(kind, side)] = steady_ns

    def forget(self) -> None:
        """Start anew, when the executor is activated."""
        self._heard_ns.clear()
        self.forget_sent()

    def forget_sent(self) -> None:
        """Stamps from before can't be compared with those to come."""
        self._sent.clear()

    def check(self, steady_ns: int) -> "Alarm | None":
        """The first source that has been silent for too long."""
        for (kind, side), heard_ns in self._heard_ns.items():
            limit_s = getattr(self._config, f"{kind}_timeout_s")
            silent_s = (steady_ns - heard_ns) * 1e-9
            if limit_s and silent_s > limit_s:
                what = "joint states" if kind == "joint_state" else "controller"
                reason = f"{side} arm's {what} silent for {silent_s:.2f} s (limit {limit_s} s)"
                return Alarm(kind, Response.FAULT if kind == "joint_state" else Response.HOLD, reason)
        return None

    def renew(self) -> None:
        """A chunk was accepted; its age counts from when it is looked at next."""
        self._renewed_ns = None

    def overdue(self, steady_ns: int) -> str:
        """Why a chunk must not be followed any longer, or nothing."""
        self._renewed_ns = steady_ns if self._renewed_ns is None else self._renewed_ns
        age_s, limit_s = (steady_ns - self._renewed_ns) * 1e-9, self._config.chunk_timeout_s
        return f"no new chunk for {age_s:.2f} s (limit {limit_s} s)" if limit_s and age_s > limit_s else ""

    def sent(self, nominal_ns: int, position: Floats) -> None:
        """Remember what was sent, to compare with what is measured later."""
        if not self._sent or not np.array_equal(position, self._sent[-1][1]):
            self._moved_ns = nominal_ns
        self._sent.append((nominal_ns, position))

    def track(self, stamp_ns: int, measured: Floats, names: tuple[str, ...]) -> "Alarm | None":
        """Compare a measurement with what was sent tracking_delay_s before it."""
        due_ns = stamp_ns - round(self._config.tracking_delay_s * 1e9)
        while len(self._sent) > 1 and self._sent[1][0] <= due_ns:
            self._sent.popleft()
        if not self._sent or self._sent[0][0] - due_ns > OLDEST_MATCH_NS:
            return None
        rests = due_ns - self._moved_ns >= SETTLED_NS
        worst, error = self._worst(measured, self._sent[0][1])
        limits = [(self._config.tracking_error, "command"), (self._config.rest_error * rests, "command at rest")]
        for limit, what in limits:
            if limit and not error <= limit:
                reason = f"joint {names[worst]!r} is {error:.3f} from its {what} (limit {limit})"
                return Alarm("tracking", Response.FAULT, f"{reason}; is its controller active?")
        return None

    def apart(self, measured: Floats, names: tuple[str, ...]) -> str:
        """Say which joint is too far from what was sent last to send it again, or nothing."""
        limit = self._config.rest_error / 2
        if not limit or not self._sent:
            return ""
        worst, error = self._worst(measured, self._sent[-1][1])
        return "" if error <= limit else f"joint {names[worst]!r} is {error:.3f} from its command (limit {limit})"

    def believable(self, measured: Floats) -> bool:
        """True where `measured` is as near to what was sent last as an arm is that something has just stopped."""
        return bool(self._sent) and self.near(measured, self._sent[-1][1])

    def near(self, measured: Floats, position: Floats) -> bool:
        """True where no joint is further from `position` than twice what is a fault."""
        return self._worst(measured, position)[1] <= 2 * max(self._config.tracking_error, self._config.rest_error)

    def _worst(self, measured: Floats, sent: Floats) -> tuple[int, float]:
        """Index and distance of the joint that is furthest from `sent`; not a number counts as furthest."""
        error = np.where(self._watched, np.abs(measured - sent), 0.0)
        worst = int(error.argmax())
        return worst, float(error[worst])

    def strayed(self, errors: Mapping[str, float]) -> "Alarm | None":
        """Judge what a controller says of itself: distances in rad of joints from what it aims at."""
        limit = self._config.tracking_error
        far = {joint: abs(error) for joint, error in errors.items() if not abs(error) <= limit}
        if not limit or not far:
            return None
        name = max(far, key=lambda joint: far[joint])
        reason = f"joint {name!r} is {far[name]:.3f} from what its controller aims at (limit {limit}); is it blocked?"
        return Alarm("tracking", Response.FAULT, reason)
