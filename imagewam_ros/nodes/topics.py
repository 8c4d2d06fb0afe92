# SPDX-License-Identifier: Apache-2.0
"""Names of all topics and services, relative, so that a namespace moves the robot."""

JOINT_STATES = "joint_states"
CHUNK = "policy/action_chunk"
STATUS = "executor/status"
COMMAND = "executor/command"
EVENT = "executor/event"
PARAMETERS = "executor/parameters"
JOINT_COMMAND = "joint_command"
HOLD = "executor/hold"
PAUSE = "executor/pause"
"""The same as holding, for who looks for resume's other half."""
RESUME = "executor/resume"
RESET_FAULT = "executor/reset_fault"
RELEASE = "executor/release"
TAKE_OVER = "executor/take_over"
"""For both arms; with _left or _right for one."""
RUN = "policy/run"
FRONT_IMAGE = "front_camera/color/image_raw"
"""A view for people, never for the policy."""
SIM_STATUS = "sim/status"
SIM_OBJECTS = "sim/object_poses"
"""In the order of sim/status's object_names. For experts and people, never for the policy."""
SIM_RESET = "sim/reset"
SET_INSTRUCTION = "policy/set_instruction"
PREVIEW_GOAL = "policy/preview_goal"
TELEOP_STATUS = "teleop/status"
TELEOP_ENGAGE = "teleop/engage"
START_OVERLAY = "evaluation/start_overlay"
"""The start pose of a judged trial over the live picture, for people."""
DOCTOR_CHECK = "doctor/check"
EPISODE = "episode"
"""Prefix of the recorder's services: start, stop, success, failure, discard."""
EPISODE_STATUS = "episode/status"
EPISODE_INSTRUCTION = "episode/set_instruction"
JOY = "joy"


def forward(side: str) -> str:
    """Commands of an arm's forward position controller."""
    return f"{side}_forward_position_controller/commands"


def trajectory(side: str) -> str:
    """Commands of an arm's joint trajectory controller."""
    return f"{side}_joint_trajectory_controller/joint_trajectory"


def gripper(side: str) -> str:
    """Commands of a gripper's forward position controller, one value in m."""
    return f"{side}_gripper_controller/commands"


def gripper_action(side: str) -> str:
    """Action of a gripper's controller, as ros2_controllers names it."""
    return f"{side}_gripper_controller/gripper_cmd"


def controller_state(side: str) -> str:
    """What an arm's trajectory controller tells of itself."""
    return f"{side}_joint_trajectory_controller/controller_state"


def camera_info(image_topic: str) -> str:
    """Topic of the intrinsics beside an image topic."""
    return f"{image_topic.rpartition('/')[0]}/camera_info"


def compressed(image_topic: str) -> str:
    """Topic of the compressed images beside an image topic."""
    return f"{image_topic}/compressed"


def leader(side: str) -> str:
    """Joint states of the leader arm of a side."""
    return f"{side}_leader/joint_states"
