# SPDX-License-Identifier: Apache-2.0
"""Parameters of the executor node."""

from dataclasses import dataclass, field, replace

from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.control.guard import GuardConfig
from imagewam_ros.core.embodiment import GRIPPERS
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.nodes.outputs import KINDS


@dataclass(frozen=True)
class ExecutorNodeConfig:
    """output names the controllers of the arms, grippers the way to the grippers (core.embodiment.GRIPPERS).

    Empty grippers are the robot's own; gripper_effort in N goes into goals of gripper actions, 0 is the
    driver's. real_time_factor is the usual speed of simulated time; it scales watchdogs.
    joint_state_age_s is the oldest measurement to start from. fifo_priority 1 to 99 asks for
    SCHED_FIFO, cpu pins the control thread; 0 and -1 leave them alone. guarded watches tool speed,
    workspace and the distance of links by the bounds guard.*; a simulation may do without. shadow
    compares the policy with whoever else moves the arms, and lets it move nothing.
    control.* are the executor's own parameters.
    """

    robot: str = "sim_cell"
    output: str = "forward"
    grippers: str = ""
    gripper_effort: float = 0.0
    real_time_factor: float = 1.0
    joint_state_age_s: float = 0.5
    status_rate_hz: float = 10.0
    fifo_priority: int = 0
    cpu: int = -1
    shadow: bool = False
    guarded: bool = True
    guard: GuardConfig = field(default_factory=GuardConfig)
    control: ExecutorConfig = field(default_factory=ExecutorConfig)

    def __post_init__(self) -> None:
        if self.output not in KINDS:
            raise ConfigError(unknown_name("output", self.output, KINDS))
        if self.output == "trajectory" and not self.control.catch_up_s:
            suited = replace(self.control, catch_up_s=self.control.late_limit_s)
            object.__setattr__(self, "control", suited)
        if self.grippers and self.grippers not in GRIPPERS:
            raise ConfigError(unknown_name("grippers", self.grippers, GRIPPERS))
        if self.gripper_effort < 0:
            raise ConfigError(f"gripper_effort must not be negative, found {self.gripper_effort}; 0 is the driver's")
        if not 0.01 <= self.real_time_factor <= 20:
            raise ConfigError(f"real_time_factor must be 0.01 to 20, found {self.real_time_factor}")
        if not self.joint_state_age_s > 0 or not 1 <= self.status_rate_hz <= 50:
            raise ConfigError("joint_state_age_s must be positive and status_rate_hz 1 to 50")
        if not 0 <= self.fifo_priority <= 99:
            raise ConfigError(f"fifo_priority must be 0 to 99, found {self.fifo_priority}")
