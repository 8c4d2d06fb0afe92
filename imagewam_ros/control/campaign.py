# SPDX-License-Identifier: Apache-2.0
"""Random abuse of the executor: a robot's limits must hold whatever arrives, and whenever.

A campaign is a series of short lives of one executor each. In a life the tick rate, the merge rule
and the character of the chunks are drawn once; chunks come late, out of order, twice, damaged or
not at all; ticks come late, time jumps, people hold, resume, take over and reset. What was sent is
judged by the checker; whether the arm could have stopped is asked of ruckig, not of the limiter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from ruckig import ControlInterface, InputParameter, Ruckig, Synchronization, Trajectory

from imagewam_ros.control import checker
from imagewam_ros.control.executor import Executor, ExecutorConfig, State
from imagewam_ros.control.timeline import RULES
from imagewam_ros.core.embodiment import Embodiment, Limits
from imagewam_ros.core.schema import ActionChunk, Command, Floats, JointState, Source

RATES_HZ = (50.0, 100.0, 125.0, 200.0, 250.0, 500.0, 1000.0)
LIFE_S = 6.0
"""Length of one life in nominal time."""

STOP_EVERY = 20
"""Ticks between two questions whether the arm can stop."""

Rng = np.random.Generator
Progress = Callable[[int], None]
"""Told the number of commands so far after each life."""


@dataclass
class Tally:
    """Sums over a campaign. velocity_jump is the largest of the reference over the limit."""

    ticks: int = 0
    violations: int = 0
    starved_ticks: int = 0
    velocity_jump: float = 0.0
    unstoppable: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    limited_ticks: int = 0
    first_violation: str = ""


def run(embodiment: Embodiment, ticks: int, seed: int, progress: "Progress | None" = None) -> Tally:
    """Run lives until `ticks` commands were sent."""
    tally, life = Tally(), 0
    while tally.ticks < ticks:
        _Life(embodiment, np.random.default_rng([seed, life]), tally).run(ticks - tally.ticks)
        life += 1
        if progress:
            progress(tally.ticks)
    return tally


class _Life:
    """One executor from activation to deactivation."""

    def __init__(self, embodiment: Embodiment, rng: Rng, tally: Tally) -> None:
        self.rng, self.tally = rng, tally
        self.robot = replace(embodiment, control_rate_hz=float(rng.choice(RATES_HZ)))
        self.executor = Executor(self.robot, _random_config(rng))
        self.stream = Stream(self.robot, rng)
        self.commands: list[Command] = []
        self.spans: list[tuple[int, int]] = []
        self.rough = rng.random() < 0.5  # ticks late, time jumping, people interfering
        self.now_ns = int(rng.integers(0, 10**18))

    def run(self, most: int) -> None:
        limits = self.robot.limits
        start = np.clip(self.stream.positions(self.now_ns)[0], limits.lower, limits.upper)
        zero = np.zeros(start.size)
        self.executor.activate(self.now_ns, JointState(self.now_ns, self.robot.joint_names, start, zero))
        for _ in range(min(int(LIFE_S * self.robot.control_rate_hz), most)):
            self._interfere()
            self._tick()
        self.spans.clear()
        self.executor.deactivate(self.now_ns)
        for _ in range(int(LIFE_S * self.robot.control_rate_hz)):
            if self.executor.state is not State.INACTIVE:
                self._tick()
        assert self.executor.state is State.INACTIVE, "the arms did not come to rest"
        self._judge()

    def _tick(self, jump_ns: int = 0) -> None:
        rng, period = self.rng, self.robot.period_ns
        self.now_ns = self.executor.next_ns + int(rng.uniform(-0.2, 0.7) * period) + jump_ns
        if self.rough and rng.random() < 0.01:
            self.now_ns += int(rng.integers(1, 12)) * period
        for chunk in self.stream.due(self.now_ns):
            self._offer(chunk)
        step = self.executor.step(self.now_ns)
        if step.periods == 0:
            return
        self.commands.append(step.command)
        if step.reason.startswith("time jumped"):
            self.spans.clear()
        covered = any(first <= step.command.nominal_ns <= last for first, last in self.spans)
        self.tally.starved_ticks += step.state is State.HOLDING and covered
        self.stream.here = step.command.position

    def _offer(self, chunk: ActionChunk) -> None:
        before = self.executor.reference().velocity
        accepted, _, kind = self.executor.accept(chunk, self.now_ns)
        self._compare(before)
        self.tally.accepted += accepted
        if accepted:
            self.spans.append((self.now_ns, chunk.due_ns(chunk.rows - 1)))
        else:
            self.tally.refused[kind] = self.tally.refused.get(kind, 0) + 1

    def _compare(self, before: Floats) -> None:
        jump = np.abs(self.executor.reference().velocity - before) / self.robot.limits.velocity
        self.tally.velocity_jump = max(self.tally.velocity_jump, float(jump.max()))

    def _interfere(self) -> None:
        """Hold, fault, clock jump, end of a takeover, each about once in a few seconds of a rough life."""
        if not self.rough or self.rng.random() > 1.5 / self.robot.control_rate_hz:
            return
        before = self.executor.reference().velocity
        self.spans.clear()
        if self.executor.state is State.FAULTED:
            if self.executor.at_rest:
                self.executor.reset_fault()
                before = self.executor.reference().velocity
        elif self.executor.state is State.HOLDING:
            self.executor.resume()
        elif self.executor.state is State.TAKEOVER and self.rng.random() < 0.5:
            self.executor.release(self.now_ns)
        elif self.rng.random() < 0.5:
            self.executor.hold("campaign")
        else:
            self.executor.fault("campaign")
        self._compare(before)
        if self.rng.random() < 0.3:
            self._tick(int(self.rng.choice([-5, 5])) * 10**9)

    def _judge(self) -> None:
        log = checker.gather(self.commands)
        found = checker.check_log(log, self.robot.limits)
        tally = self.tally
        tally.ticks += len(self.commands)
        tally.limited_ticks += self.executor.status.limited_ticks
        tally.violations += len(found)
        if found and not tally.first_violation:
            tally.first_violation = f"{self.robot.control_rate_hz:g} Hz: {found[0]}"
        tally.unstoppable += sum(not can_stop(c, self.robot.limits) for c in self.commands[::STOP_EVERY])


def can_stop(command: Command, limits: Limits) -> bool:
    """Whether ruckig finds a stop from `command` that keeps every bound to within 1e-9."""
    joints = command.position.size
    given, way = InputParameter(joints), Trajectory(joints)
    given.control_interface, given.synchronization = ControlInterface.Velocity, Synchronization.No
    given.current_position = [0.0] * joints  # ruckig counts 0 among the extrema of a stop, wherever it begins
    given.current_velocity, given.current_acceleration = list(command.velocity), list(command.acceleration)
    given.target_velocity = given.target_acceleration = [0.0] * joints
    given.max_velocity, given.max_acceleration = list(limits.velocity), list(limits.acceleration)
    given.max_jerk = list(limits.jerk)
    Ruckig(joints).calculate(given, way)
    low = command.position + [bound.min for bound in way.position_extrema]
    high = command.position + [bound.max for bound in way.position_extrema]
    return bool((low >= limits.lower - 1e-9).all() and (high <= limits.upper + 1e-9).all())


def _random_config(rng: Rng) -> ExecutorConfig:
    return ExecutorConfig(
        rule=str(rng.choice(RULES)),
        decay=float(rng.uniform(-1, 1)),
        crossfade_s=float(rng.uniform(0.02, 0.5)),
        execute_horizon=int(rng.choice([0, 0, 4, 8, 16])),
        latency_skip_s=float(rng.choice([0.0, 0.0, 0.05])),
        smoothing_hz=float(rng.uniform(1, 30)),
        stop_share=float(rng.uniform(0.3, 1.0)),
        absurd_speed=float(rng.choice([4.0, 100.0])),
        absurd_jump_s=float(rng.choice([0.5, 100.0])),
    )


class Stream:
    """A source of chunks of one random character; `here` is where the arms are."""

    def __init__(self, robot: Embodiment, rng: Rng) -> None:
        self.robot, self.rng = robot, rng
        self.here = rng.uniform(robot.limits.lower, robot.limits.upper)
        self.kind = str(rng.choice(["smooth", "fast", "walk", "targets", "bounds"]))
        self.period_ns = int(rng.choice([10, 33, 50, 67, 100])) * 10**6
        self.rows = max(int(rng.choice([1, 8, 16, 50])), int(rng.choice([0, 6, 6]) * 10**8 // self.period_ns))
        self.every_ns = int(rng.uniform(0.05, 0.7) * 1e9)
        self.latency_s, self.jitter_s = rng.uniform(0, 0.3), rng.uniform(0, 0.05)
        self.damage = float(rng.choice([0.0, 0.1, 0.4]))
        self.source = Source(int(rng.choice([0, 0, 0, 1, 2])))
        self.frequency = rng.uniform(0.1, 1.0, len(robot.joints))
        self.phase = rng.uniform(0, 6.3, len(robot.joints))
        self.sequence, self.next_ns = 0, 0
        self.flight: list[tuple[int, ActionChunk]] = []

    def due(self, now_ns: int) -> list[ActionChunk]:
        """Make chunks that are observed by now; return those that arrive by now, damaged or not."""
        if not self.next_ns or abs(now_ns - self.next_ns) > 2 * 10**9:
            self.next_ns = now_ns
        while self.next_ns <= now_ns:
            self._send(self.next_ns)
            self.next_ns += self.every_ns
        arrived = [chunk for at, chunk in self.flight if at <= now_ns]
        self.flight = [(at, chunk) for at, chunk in self.flight if at > now_ns]
        return arrived

    def _send(self, stamp_ns: int) -> None:
        rng = self.rng
        self.sequence += 1
        chunk = ActionChunk(
            stamp_ns,
            self.period_ns,
            self.robot.joint_names,
            self.positions(stamp_ns),
            float(rng.choice([0.0, 1.0])),
            sequence=self.sequence,
            source=self.source,
            contract_hash="campaign",
        )
        arrival = stamp_ns + int(1e9 * max(self.latency_s + rng.normal() * self.jitter_s, 0.0))
        if rng.random() < self.damage:
            spoilt = damaged(chunk, rng)
            if spoilt is not None:
                self.flight.append((arrival, spoilt))
                arrival += int(rng.uniform(0, 0.3) * 1e9)
            if rng.random() < 0.5:
                return
        self.flight.append((arrival, chunk))

    def positions(self, stamp_ns: int) -> Floats:
        """Rows of a chunk observed at `stamp_ns`, of this stream's character."""
        limits, rng = self.robot.limits, self.rng
        middle, half = (limits.lower + limits.upper) / 2, (limits.upper - limits.lower) / 2
        count = np.arange(self.rows)[:, None]
        step = limits.velocity * self.period_ns * 1e-9
        if self.kind in ("smooth", "fast"):
            share = 0.5 if self.kind == "smooth" else 2.0
            omega = 2 * np.pi * self.frequency
            size = np.minimum(half, share * np.minimum(limits.velocity / omega, limits.acceleration / omega**2))
            time_s = (stamp_ns % 10**13) * 1e-9 + count * self.period_ns * 1e-9
            wave: Floats = middle + size * np.sin(omega * time_s + self.phase)
            return wave
        if self.kind == "walk":
            walk: Floats = self.here + np.cumsum(rng.normal(0, 0.5, (self.rows, middle.size)) * step, axis=0)
            return walk
        target = rng.uniform(limits.lower, limits.upper)
        if self.kind == "bounds":
            target = middle + np.sign(rng.normal(size=middle.size)) * half * rng.choice([0.99, 1.0, 1.2])
        towards: Floats = self.here + np.clip(target - self.here, -step * (count + 1), step * (count + 1))
        return towards


def damaged(chunk: ActionChunk, rng: Rng) -> "ActionChunk | None":
    """The chunk with one fault, or None for one that was lost."""
    kind = int(rng.integers(0, 12))
    positions = np.array(chunk.positions)
    if kind == 0:
        return None
    if kind in (1, 2):
        positions[rng.integers(0, chunk.rows), rng.integers(0, positions.shape[1])] = np.nan if kind == 1 else np.inf
        return replace(chunk, positions=positions)
    if kind == 3:
        return replace(chunk, positions=positions[:, :-1])
    if kind == 4:
        return replace(chunk, joint_names=chunk.joint_names[::-1])
    if kind == 5:
        return replace(chunk, joint_names=chunk.joint_names[:-1], positions=positions[:, :-1])
    if kind == 6:
        return replace(chunk, contract_hash="other")
    if kind == 7:
        return replace(chunk, stamp_ns=chunk.stamp_ns - int(rng.uniform(0, 3) * 1e9))
    if kind == 8:
        return replace(chunk, stamp_ns=chunk.stamp_ns + int(rng.uniform(0, 3) * 1e9))
    if kind == 9:
        return replace(chunk, positions=positions + rng.normal(0, 10 ** rng.uniform(-3, 6), positions.shape))
    if kind == 10:
        return replace(chunk, period_ns=int(rng.choice([0, -1, 1, 10**6, 10**9])))
    return replace(chunk, source=Source(int(rng.integers(0, 4))))
