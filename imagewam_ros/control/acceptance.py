# SPDX-License-Identifier: Apache-2.0
"""Which chunks may move the arms. Every refusal says what was asked, what was found, what to do.

Absurd input is refused as a whole; a path that leaves the joint bounds a little is clamped.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import CHUNK_SCHEMA, ActionChunk, Floats, Source


class Verdict(NamedTuple):
    """What became of a chunk. `kind` is one word to count refusals by, empty when accepted."""

    accepted: bool
    reason: str = ""
    kind: str = ""


ACCEPTED = Verdict(True)


@dataclass(frozen=True)
class AcceptanceConfig:
    """Bounds on what is believed.

    contract_hash: the only contract that policy chunks may carry; empty takes the first one since
    activation. stale_after_s: oldest observation at arrival. future_tolerance_s: how far an
    observation may lie ahead of our clock. absurd_speed: rows may imply at most this multiple of a
    joint's velocity limit. absurd_jump_s: the row that is due next may be at most so many seconds
    of full speed away. absurd_overreach: rows may leave a joint's bounds by this share of its
    range; they are clamped. longest_chunk_s: longest time that a chunk may cover, and that its first row
    may be away from its observation.
    """

    contract_hash: str = ""
    stale_after_s: float = 1.0
    future_tolerance_s: float = 0.1
    absurd_speed: float = 4.0
    absurd_jump_s: float = 0.5
    absurd_overreach: float = 0.25
    longest_chunk_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("stale_after_s", "absurd_speed", "absurd_jump_s", "longest_chunk_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")
        for name in ("future_tolerance_s", "absurd_overreach"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, found {getattr(self, name)}")


@dataclass(frozen=True)
class Gate:
    """Judge chunks for `embodiment` by `config`."""

    embodiment: Embodiment
    config: AcceptanceConfig

    def sides(self, chunk: ActionChunk) -> tuple[str, ...]:
        """Arms whose joints the chunk names in the robot's order; none when it names others."""
        for sides in (("left", "right"), ("left",), ("right",)):
            names = [n for side in sides for n in self.embodiment.joint_names[self.embodiment.arm_slice(side)]]
            if list(chunk.joint_names) == names:
                return sides
        return ()

    def columns(self, sides: tuple[str, ...]) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """Indices of the joints of `sides` in the robot's order."""
        every = np.arange(len(self.embodiment.joints))
        return np.concatenate([every[self.embodiment.arm_slice(side)] for side in sides])

    def judge(self, chunk: ActionChunk, now_ns: int, earliest_ns: int) -> Verdict:
        """Judge all that does not depend on earlier chunks or on where the arms are.

        Rows that are due at or before earliest_ns are of no use any more.
        """
        return self._form(chunk) or self._time(chunk, now_ns, earliest_ns) or self._content(chunk) or ACCEPTED

    def _form(self, chunk: ActionChunk) -> "Verdict | None":
        names, robot = chunk.joint_names, self.embodiment
        if chunk.schema < CHUNK_SCHEMA:
            return Verdict(
                False, f"chunk has schema {chunk.schema}, this executor reads {CHUNK_SCHEMA} and newer", "schema"
            )
        sides = self.sides(chunk)
        if not sides:
            return Verdict(False, _wrong_joints(names, robot.joint_names), "joints")
        if len(sides) == 1 and chunk.source not in (Source.TELEOP, Source.TAKEOVER):
            reason = (
                f"{chunk.source.name.lower()} chunk moves only the {sides[0]} arm; policies move both arms or neither"
            )
            return Verdict(False, reason, "joints")
        if chunk.rows < 1 or chunk.positions.shape[1] != len(names):
            reason = f"chunk has shape {chunk.positions.shape}, expected at least one row of {len(names)} joints"
            return Verdict(False, reason, "shape")
        if chunk.period_ns <= 0 or not np.isfinite(chunk.first_row_offset_periods):
            offset = chunk.first_row_offset_periods
            reason = f"chunk has period_ns {chunk.period_ns}, offset {offset} periods; the period must be positive"
            return Verdict(False, reason, "shape")
        offset_s = chunk.first_row_offset_periods * (chunk.period_ns * 1e-9)
        if abs(offset_s) > self.config.longest_chunk_s:
            reason = f"row 0 is {offset_s:.4g} s from the observation (limit {self.config.longest_chunk_s} s)"
            return Verdict(False, reason, "shape")
        if chunk.rows * chunk.period_ns > self.config.longest_chunk_s * 1e9:
            reason = f"chunk covers {chunk.rows * chunk.period_ns * 1e-9:.1f} s (limit {self.config.longest_chunk_s} s)"
            return Verdict(False, reason, "shape")
        return None

    def _time(self, chunk: ActionChunk, now_ns: int, earliest_ns: int) -> "Verdict | None":
        age_s = (now_ns - chunk.stamp_ns) * 1e-9
        if age_s > self.config.stale_after_s:
            reason = f"observation is {age_s:.2f} s old (limit {self.config.stale_after_s} s); is inference too slow?"
            return Verdict(False, reason, "stale")
        if age_s < -self.config.future_tolerance_s:
            limit_s = self.config.future_tolerance_s
            reason = f"observation is {-age_s:.2f} s in the future (limit {limit_s} s); are the clocks in step?"
            return Verdict(False, reason, "future")
        if chunk.due_ns(chunk.rows - 1) <= earliest_ns:
            return Verdict(
                False, f"all {chunk.rows} rows are past; the chunk came {age_s:.2f} s after its observation", "stale"
            )
        return None

    def _content(self, chunk: ActionChunk) -> "Verdict | None":
        bad = np.argwhere(~np.isfinite(chunk.positions))
        if bad.size:
            row, joint = (int(x) for x in bad[0])
            value = chunk.positions[row, joint]
            return Verdict(
                False, f"row {row} of joint {chunk.joint_names[joint]!r} is {value}; {len(bad)} such values", "nan"
            )
        limits, columns = self.embodiment.limits, self.columns(self.sides(chunk))
        over = np.maximum(limits.lower[columns] - chunk.positions, chunk.positions - limits.upper[columns])
        share = over / (limits.upper - limits.lower)[columns]
        if share.max() > self.config.absurd_overreach:
            row, joint = divmod(int(share.argmax()), share.shape[1])
            reason = (
                f"row {row} of joint {chunk.joint_names[joint]!r} is {chunk.positions[row, joint]:.3f}, outside "
                f"{limits.lower[columns][joint]} to {limits.upper[columns][joint]}; are units and order right?"
            )
            return Verdict(False, reason, "bounds")
        steps = np.abs(np.diff(chunk.positions, axis=0)) / (limits.velocity[columns] * chunk.period_ns * 1e-9)
        if steps.size and steps.max() > self.config.absurd_speed:
            row, joint = divmod(int(steps.argmax()), steps.shape[1])
            jump = chunk.positions[row + 1, joint] - chunk.positions[row, joint]
            reason = (
                f"joint {chunk.joint_names[joint]!r} jumps by {jump:.3f} to row {row + 1}, "
                f"{steps.max():.1f} times its velocity limit (limit {self.config.absurd_speed})"
            )
            return Verdict(False, reason, "jump")
        return None

    def distance(
        self, chunk: ActionChunk, sides: tuple[str, ...], reference: Floats, now_ns: int, reach_s: float
    ) -> "Verdict | None":
        """Refuse when the row due next is more than reach_s of full speed from `reference` (joints,) on `sides`."""
        columns = self.columns(sides)
        names, limit = [self.embodiment.joint_names[i] for i in columns], self.embodiment.limits.velocity[columns]
        row = next(i for i in range(chunk.rows) if chunk.due_ns(i) > now_ns)
        wanted = self.clamped(chunk)[row][[chunk.joint_names.index(name) for name in names]]
        reach = np.abs(wanted - reference[columns]) / limit
        joint = int(reach.argmax())
        if reach[joint] <= reach_s:
            return None
        reason = (
            f"joint {names[joint]!r} should be at {wanted[joint]:.3f} but is at {reference[columns][joint]:.3f}, "
            f"{reach[joint]:.2f} s of full speed away (limit {reach_s} s); bring the two together first"
        )
        return Verdict(False, reason, "jump")

    def clamped(self, chunk: ActionChunk) -> Floats:
        """Rows clamped to the joint bounds, (rows, joints of the chunk)."""
        limits, columns = self.embodiment.limits, self.columns(self.sides(chunk))
        return np.clip(chunk.positions, limits.lower[columns], limits.upper[columns])


def _wrong_joints(found: tuple[str, ...], expected: tuple[str, ...]) -> str:
    if sorted(found) == sorted(expected):
        first = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        return f"joints are in another order: [{first}] is {found[first]!r}, this robot has {expected[first]!r}"
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    return (
        f"joints differ from this robot's: missing {missing}, unknown {unknown}; "
        "was the policy trained for another robot?"
    )
