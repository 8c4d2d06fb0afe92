# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks' load nodes say when the node under load is not as it should be."""

import pytest
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import Image

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.msg import ExecutorStatus
from imagewam_ros.nodes import qos, topics
from imagewam_ros.nodes.recorder_load_node import LoadConfig

RECORDER_LOAD = "imagewam_ros.nodes.recorder_load_node"
GRAPH_LOAD = "imagewam_ros.nodes.graph_load_node"
ROBOT = load_embodiment("sim_cell")


def said(spawn, probe, module: str, **parameters: object) -> str:
    """Run the node to its failing end and return what it said."""
    load = spawn(module, **parameters)
    assert probe.until(lambda: load.process.poll() is not None), load.text()
    assert load.process.returncode == 1, load.text()
    return load.text()


def recorder(probe, answer) -> None:
    probe.node.create_service(ChangeState, "recorder/change_state", answer, callback_group=ReentrantCallbackGroup())


def test_no_recorder(spawn, probe) -> None:
    text = said(spawn, probe, RECORDER_LOAD, patience_s=1.0)
    assert "there is no service recorder/change_state; does the recorder run? (waited 1 s)" in text


def test_a_recorder_that_does_not_answer(spawn, probe) -> None:
    async def mute(_, response):
        await Future()
        return response

    recorder(probe, mute)
    text = said(spawn, probe, RECORDER_LOAD, patience_s=5.0)
    assert "recorder/change_state does not answer (waited 5 s)" in text


@pytest.mark.parametrize(
    ("obeys", "text"),
    [
        (False, "recorder/change_state failed: ; see the recorder's output"),
        (True, "the recorder does not subscribe (waited 5 s)"),
    ],
)
def test_a_recorder_that_does_not_do_its_work(spawn, probe, obeys: bool, text: str) -> None:
    def answer(_, response: ChangeState.Response) -> ChangeState.Response:
        response.success = obeys
        return response

    recorder(probe, answer)
    assert text in said(spawn, probe, RECORDER_LOAD, patience_s=5.0)


def test_an_impossible_load_is_refused() -> None:
    with pytest.raises(ConfigError, match="seconds, width, height, camera_hz and joint_hz must be positive"):
        LoadConfig(width=0)


def test_no_executor(spawn, probe) -> None:
    assert "the executor is not active (waited 1 s)" in said(spawn, probe, GRAPH_LOAD, patience_s=1.0)


@pytest.mark.parametrize(
    ("looks", "text"),
    [(False, "the policy does not subscribe (waited 5 s)"), (True, "policy and executor say nothing (waited 5 s)")],
)
def test_an_executor_alone(spawn, probe, looks: bool, text: str) -> None:
    status = probe.node.create_publisher(ExecutorStatus, topics.STATUS, qos.STATUS)
    status.publish(ExecutorStatus(state=ExecutorStatus.HOLDING))
    if looks:
        for camera in ROBOT.cameras:
            probe.collect(Image, camera.topic, qos.IMAGES)
    assert text in said(spawn, probe, GRAPH_LOAD, patience_s=5.0, seconds=0.2)
