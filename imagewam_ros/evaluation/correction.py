# SPDX-License-Identifier: Apache-2.0
"""A policy's run that the scripted expert watches and, when it goes astray, takes over: one episode of DAgger.

The expert takes over by the executor's own takeover, as a human does: the arms stop, then chunks of source TAKEOVER
move them. Source of the idea: Ross et al. 2011 (DAgger); Kelly et al. 2019 (HG-DAgger), interventions only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from imagewam_ros.control.executor import Executor, ExecutorConfig
from imagewam_ros.core.errors import ConfigError, LimitViolation
from imagewam_ros.core.schema import ActionChunk, Floats, Image, JointState, Source
from imagewam_ros.data.interventions import SpanKeeper
from imagewam_ros.evaluation.drivers import Driver
from imagewam_ros.evaluation.trial import TrialConfig
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.expert import PERIOD_NS, Expert

AT_REST = 1e-6
"""Joint velocity in rad/s or m/s below which the arms have stopped."""
EXPERT_FRAMES = 4
"""The expert sends a chunk every so many frames."""


@dataclass(frozen=True)
class Rule:
    """When the expert takes over.

    A tool is farther than deviation_m, for patience_s, from every point where the expert's would be within
    window_s of now; or the task is not done late_s after the expert would have done it.
    """

    deviation_m: float = 0.06
    patience_s: float = 0.3
    window_s: float = 1.5
    late_s: float = 1.0

    def __post_init__(self) -> None:
        if min(self.deviation_m, self.window_s) <= 0 or min(self.patience_s, self.late_s) < 0:
            raise ConfigError(f"deviation_m and window_s must be positive, the others not negative: found {self}")


@dataclass
class Corrected:
    """One watched run. Frames are lists of equal length; the action of a frame is due one period after it."""

    seed: int
    instruction: str
    success: bool = False
    reason: str = ""
    interventions: tuple[tuple[int, int], ...] = ()
    images: list[dict[str, Image]] = field(default_factory=list)
    states: list[JointState] = field(default_factory=list)
    actions: list[Floats] = field(default_factory=list)


class Watch:
    """Compares the tools with where the expert's would be, from a plan made at the start."""

    def __init__(self, cell: Cell, rule: Rule, chains: Chains) -> None:
        """Plan. Raises LimitViolation when the expert cannot."""
        self._rule, self._chains = rule, chains
        expert = Expert(cell)
        expert.start()
        poses = [chains.forward(row) for row in expert.curve.rows]
        self._paths = {side: np.stack([pose[side][:3, 3] for pose in poses]) for side in poses[0]}
        self._end_ns = expert.curve.end_ns
        self._astray_ns: int | None = None

    def objection(self, state: JointState) -> str:
        """Why the expert should take over now, empty while it need not."""
        rule, now = self._rule, state.stamp_ns
        if now > self._end_ns + rule.late_s * 1e9:
            return f"not done {rule.late_s:g} s after the expert would have been"
        distances = self._distances(state)
        side = max(distances, key=distances.__getitem__)
        if distances[side] <= rule.deviation_m:
            self._astray_ns = None
            return ""
        self._astray_ns = now if self._astray_ns is None else self._astray_ns
        if now - self._astray_ns < rule.patience_s * 1e9:
            return ""
        return f"the {side} tool is {100 * distances[side]:.0f} cm from the expert's way"

    def _distances(self, state: JointState) -> dict[str, float]:
        """Distance in m of each tool from the nearest point of its path within the window."""
        tools = self._chains.forward(state.position)
        around = round(self._rule.window_s * 1e9 / PERIOD_NS)
        found = {}
        for side, path in self._paths.items():
            row = min(state.stamp_ns // PERIOD_NS, len(path) - 1)
            near = path[max(row - around, 0) : row + around + 1]
            found[side] = float(np.linalg.norm(near - tools[side][:3, 3], axis=1).min())
        return found


def run_corrected(
    cell: Cell, driver: Driver, seed: int, config: TrialConfig, rule: Rule, note: Callable[[str], None] | None = None
) -> Corrected:
    """Let `driver` try the scene of `seed`, and the expert finish what it cannot.

    Without an intervention the result has no spans. `note` is told why the expert took over.
    """
    cell.reset(seed)
    chains = Chains(cell.urdf, cell.embodiment)
    try:
        watch = Watch(cell, rule, chains)
    except LimitViolation as error:
        return Corrected(seed, cell.instruction, reason=f"no expert for this scene: {error}")
    driver.start(cell, seed)
    return _Run(cell, driver, config, watch, Corrected(seed, cell.instruction), note or (lambda _: None)).play()


class _Run:
    """The loop of one watched run, on the simulation's clock."""

    def __init__(
        self, cell: Cell, driver: Driver, config: TrialConfig, watch: Watch, result: Corrected,
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._cell, self._driver, self._config, self._watch = cell, driver, config, watch
        self._result, self._note, self._keeper = result, note, SpanKeeper()
        self._executor = Executor(cell.embodiment, ExecutorConfig())
        self._executor.activate(0, cell.joint_state())
        self._expert: Expert | None = None
        self._observed_ns = -config.every_frames * config.frame_ns
        self._pending: ActionChunk | None = None
        self._limit_ns = round(cell.task.time_limit_s * 1e9)
        self._taken = False

    def play(self) -> Corrected:
        cell, config, result = self._cell, self._config, self._result
        velocity = np.ones(1)
        while cell.time_ns < self._limit_ns and not cell.success():
            if cell.time_ns % config.frame_ns == 0 and not self._frame(float(np.abs(velocity).max())):
                break
            if self._pending is not None and cell.time_ns >= self._pending.ready_ns:
                self._executor.accept(self._pending, cell.time_ns)
                self._pending = None
            step = self._executor.step(cell.time_ns, cell.joint_state())
            velocity = step.command.velocity
            cell.step(step.command.position, cell.embodiment.period_ns)
            if cell.time_ns % config.frame_ns == 0 and len(result.actions) < len(result.states):
                result.actions.append(step.command.position)  # what was commanded one period after the frame
        result.success, result.interventions = cell.success(), self._keeper.spans
        count = len(result.actions)
        del result.states[count:], result.images[count:]
        return result

    def _frame(self, speed: float) -> bool:
        """Look, decide who acts, ask for a chunk. False when the expert cannot go on."""
        cell, state = self._cell, self._cell.joint_state()
        if not self._taken:
            reason = self._watch.objection(state)
            if reason:
                self._take_over(reason)
        elif self._expert is None and speed < AT_REST and not self._begin():
            return False
        self._keep(state)
        every = EXPERT_FRAMES if self._expert else self._config.every_frames
        due = cell.time_ns - self._observed_ns >= every * self._config.frame_ns and self._pending is None
        if due and self._expert is not None:
            self._pending = replace(self._expert.chunk(), source=Source.TAKEOVER)
        elif due and not self._taken:
            chunk = self._driver.chunk(cell)
            self._pending = replace(chunk, ready_ns=cell.time_ns + round(self._config.latency_s * 1e9))
        if due:
            self._observed_ns = cell.time_ns
        return True

    def _keep(self, state: JointState) -> None:
        cell, result = self._cell, self._result
        result.images.append({name: cell.render(name) for name in cell.embodiment.camera_names})
        result.states.append(state)
        self._keeper.tell(state.stamp_ns, self._expert is not None)
        if self._expert is not None:
            result.actions.append(self._expert.act())

    def _take_over(self, reason: str) -> None:
        self._taken, self._pending, self._result.reason = True, None, reason
        self._executor.take_over(tuple(arm.side for arm in self._cell.embodiment.arms), keep_policy=False)
        self._limit_ns = max(self._limit_ns, self._cell.time_ns + 10**9)
        self._note(reason)

    def _begin(self) -> bool:
        """Plan from where the policy left the arms. False when the expert cannot reach from there."""
        expert = Expert(self._cell)
        try:
            expert.start(free=True)
        except LimitViolation as error:
            self._result.reason += f"; the expert cannot go on: {error}"
            return False
        self._expert, self._limit_ns = expert, expert.curve.end_ns + 10**9
        self._observed_ns = -EXPERT_FRAMES * self._config.frame_ns
        return True
