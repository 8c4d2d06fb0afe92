# SPDX-License-Identifier: Apache-2.0
"""Joint states of both arms from messages that may each carry only some of the joints.

One broadcaster per arm is as common as one for all. The merged state is as old as its oldest
joint, so one silent arm can't hide behind the other.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, StaleObservation
from imagewam_ros.core.schema import Floats, JointState

UNSEEN = -1


class JointMerge:
    """The newest sample of every joint. Other joints are passed over; `arms` says where each arm's joints lie."""

    def __init__(self, joint_names: tuple[str, ...], arms: Mapping[str, slice] | None = None) -> None:
        self._names = joint_names
        self._index = {name: i for i, name in enumerate(joint_names)}
        self._arms = dict(arms or {})
        self._stamps = np.full(len(self._names), UNSEEN, dtype=np.int64)
        self._position, self._velocity = np.zeros(len(self._names)), np.zeros(len(self._names))
        self._found: tuple[str, ...] = ()

    @classmethod
    def of(cls, robot: Embodiment) -> "JointMerge":
        """Return a merge of the joints of both arms of `robot`."""
        return cls(robot.joint_names, {arm.side: robot.arm_slice(arm.side) for arm in robot.arms})

    def add(self, stamp_ns: int, names: Sequence[str], position: Floats, velocity: Floats) -> tuple[str, ...]:
        """Take one message, (names,) each, and return the arms of which every joint is newer now.

        An empty velocity is 0. Raises EmbodimentMismatch for a wrong length and StaleObservation
        for a position that is no number.
        """
        self._found = tuple(names)
        if len(position) != len(names):
            raise EmbodimentMismatch(f"joint_states names {len(names)} joints and gives {len(position)} positions")
        ours = [(i, self._index[name]) for i, name in enumerate(names) if name in self._index]
        if not ours:
            return ()
        theirs, mine = (np.array(index) for index in zip(*ours, strict=True))
        values = position[theirs]
        if not np.isfinite(values).all():
            bad = [self._names[i] for i in mine[~np.isfinite(values)]]
            raise StaleObservation(f"joint_states: position of {', '.join(bad)} is not a number; is the encoder alive?")
        before = self._ages()
        if stamp_ns < self._stamps[mine].max() - MAX_BACKWARD_NS:
            self._stamps[:] = UNSEEN  # the clock was set back
        self._stamps[mine] = np.maximum(self._stamps[mine], stamp_ns)
        self._position[mine] = values
        self._velocity[mine] = np.nan_to_num(velocity[theirs]) if len(velocity) == len(names) else 0.0
        return tuple(side for side, stamp in self._ages().items() if stamp != UNSEEN and stamp != before[side])

    @property
    def state(self) -> JointState:
        """All joints, stamped as the oldest. Raises EmbodimentMismatch naming joints that never came."""
        missing = [name for name, stamp in zip(self._names, self._stamps, strict=True) if stamp == UNSEEN]
        if missing:
            raise EmbodimentMismatch(
                f"joint_states lacks {', '.join(missing)}; found {', '.join(self._found) or 'no joints'}. "
                "Do the driver's joint names equal the robot YAML's, and are both arms on?"
            )
        return JointState(int(self._stamps.min()), self._names, self._position, self._velocity)

    def fresh(self, now_ns: int, limit_s: float, topic: str) -> JointState:
        """Return the state if it is at most `limit_s` old at `now_ns`. Raises StaleObservation naming `topic`."""
        if not self._found:
            raise StaleObservation(f"no joint states yet; is {topic} published?")
        state = self.state
        age_s = (now_ns - state.stamp_ns) / 1e9
        if abs(age_s) > limit_s:
            raise StaleObservation(
                f"the newest joint state is {age_s:.2f} s old (limit {limit_s} s); is {topic} alive, "
                "and do its stamps come from the clock that this node uses (use_sim_time)?"
            )
        return state

    @property
    def complete(self) -> bool:
        """Whether every joint has come."""
        return bool((self._stamps != UNSEEN).all())

    def _ages(self) -> dict[str, int]:
        return {side: int(self._stamps[part].min()) for side, part in self._arms.items()}


MAX_BACKWARD_NS = 300_000_000
"""Messages may overtake each other by this much; a stamp further back means another clock."""
