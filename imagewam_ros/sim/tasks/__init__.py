# SPDX-License-Identifier: Apache-2.0
"""The tasks of the simulated cell. A new task is one module here and one entry in TASKS."""

from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.sim.tasks.block_lift import BlockLift
from imagewam_ros.sim.tasks.hand_over import HandOver
from imagewam_ros.sim.tasks.task import Task
from imagewam_ros.sim.tasks.tray_lift import TrayLift

TASKS: dict[str, Task] = {"tray_lift": TrayLift(), "hand_over": HandOver(), "block_lift": BlockLift()}

__all__ = ["TASKS", "Task", "find_task"]


def find_task(name: str) -> Task:
    """Return the task called `name`. Raises ConfigError with the nearest match."""
    if name not in TASKS:
        raise ConfigError(unknown_name("task", name, TASKS))
    return TASKS[name]
