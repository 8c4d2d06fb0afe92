# SPDX-License-Identifier: Apache-2.0
"""Parameters of the recorder."""

from dataclasses import dataclass, field

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.data.bag_recorder import RecordingConfig
from imagewam_ros.nodes import topics


@dataclass(frozen=True)
class Buttons:
    """Places of buttons in sensor_msgs/Joy, -1 for none."""

    start: int = -1
    stop: int = -1
    success: int = -1
    failure: int = -1
    discard: int = -1


@dataclass(frozen=True)
class RecorderConfig:
    """Where and what to record; recording.* says how.

    Cameras and joint states of the robot and action_topic must be published before an episode can
    start; topics are recorded as far as they are, and executor/event always: it tells what a human
    corrected. compressed takes the cameras' /compressed
    topics. period_s is the policy's. first_row_offset_periods says when an action is due. In the
    simulator, instruction and task may stay empty: its own are taken.
    """

    robot: str = "sim_cell"
    directory: str = "episodes"
    instruction: str = ""
    task: str = ""
    operator: str = ""
    period_s: float = 0.05
    first_row_offset_periods: float = 1.0
    compressed: bool = False
    action_topic: str = topics.COMMAND
    topics: tuple[str, ...] = (
        topics.CHUNK,
        topics.STATUS,
        topics.EVENT,
        topics.PARAMETERS,
        topics.SIM_STATUS,
        topics.TELEOP_STATUS,
    )
    buttons: Buttons = field(default_factory=Buttons)
    recording: RecordingConfig = field(default_factory=RecordingConfig)

    def __post_init__(self) -> None:
        if not 0.001 <= self.period_s <= 10:
            raise ConfigError(f"period_s must be 0.001 to 10, found {self.period_s}")
