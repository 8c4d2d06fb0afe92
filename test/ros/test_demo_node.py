# SPDX-License-Identifier: Apache-2.0
"""What the demo says when the graph is not as it should be; small nodes of the test stand for the graph."""

from pathlib import Path

import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.nodes import topics
from imagewam_ros.nodes.demo_node import DemoConfig
from imagewam_ros.srv import ResetScene, SetInstruction

NODE = "imagewam_ros.nodes.demo_node"


@pytest.mark.parametrize("values", [{"episodes": 0}, {"episode_s": 0.0}])
def test_nothing_to_play_is_refused(values) -> None:
    with pytest.raises(ConfigError, match="episodes and episode_s must be positive, found"):
        DemoConfig(**values)


@pytest.fixture
def said(spawn, tmp_path: Path):
    """Run the demo node to its end and return what it said."""

    def run(probe, **parameters) -> str:
        demo = spawn(NODE, out=tmp_path, **parameters)
        assert probe.until(lambda: demo.process.poll() is not None), demo.text()
        assert demo.process.returncode == 1, demo.text()
        return demo.text()

    return run


def executor(probe, state: int, label: str, obeys: bool, lost: int = 0) -> None:
    """An executor in `state`; the first `lost` answers about it never arrive."""
    asked = []

    async def answer_state(_, response: GetState.Response) -> GetState.Response:
        asked.append(1)
        if len(asked) <= lost:
            await Future()
        response.current_state = State(id=state, label=label)
        return response

    def answer_change(_, response: ChangeState.Response) -> ChangeState.Response:
        response.success = obeys
        return response

    group = ReentrantCallbackGroup()
    probe.node.create_service(GetState, "executor/get_state", answer_state, callback_group=group)
    probe.node.create_service(ChangeState, "executor/change_state", answer_change)


def test_a_graph_that_is_not_there(probe, said) -> None:
    text = "error: executor is silent after 1 s, expected active; see the log files"
    assert text in said(probe, ready_s=1.0)


def test_an_executor_that_stays_inactive(probe, said) -> None:
    executor(probe, State.PRIMARY_STATE_INACTIVE, "inactive", obeys=True)
    assert "error: executor is inactive after 8 s, expected active; see the log files" in said(probe, ready_s=8.0)


def test_a_lost_answer_is_asked_for_again_and_an_executor_that_does_not_obey_is_named(probe, said) -> None:
    executor(probe, State.PRIMARY_STATE_ACTIVE, "active", obeys=False, lost=1)
    assert "error: executor could not be deactivated; log/executor.log says why" in said(probe)


def test_a_scene_that_is_refused(probe, said) -> None:
    def refuse(request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        response.success, response.message = False, f"no scene {request.seed} today"
        return response

    def accept(_, response: SetInstruction.Response) -> SetInstruction.Response:
        response.success = True
        return response

    executor(probe, State.PRIMARY_STATE_ACTIVE, "active", obeys=True)
    probe.node.create_service(ResetScene, topics.SIM_RESET, refuse)
    probe.node.create_service(SetInstruction, topics.SET_INSTRUCTION, accept)
    assert "error: sim/reset of seed 7 refused: no scene 7 today" in said(probe, seed=7)


def test_a_graph_that_falls_silent(probe, said) -> None:
    executor(probe, State.PRIMARY_STATE_ACTIVE, "active", obeys=True)
    assert "error: nothing from sim/reset for 2 s; see the log files" in said(probe, answer_s=2.0)
