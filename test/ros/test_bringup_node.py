# SPDX-License-Identifier: Apache-2.0
"""The lifecycle of the whole cell: in order, with reasons, and safely down again."""

import signal

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.msg import ExecutorCommand
from imagewam_ros.nodes import qos, topics
from imagewam_ros.nodes.bringup_node import BringupConfig

BRINGUP = "imagewam_ros.nodes.bringup_node"
SIM = "imagewam_ros.nodes.sim_node"
EXECUTOR = "imagewam_ros.nodes.executor_node"
NODES = "['sim','executor']"


def test_up_in_order_and_down_in_reverse(spawn, probe) -> None:
    logged = probe.collect(ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG)
    bringup = spawn(BRINGUP, nodes=NODES)
    sim, executor = spawn(SIM, use_sim_time=True), spawn(EXECUTOR, use_sim_time=True)
    assert probe.until(lambda: "sim, executor: active" in bringup.text(), 180), bringup.text()
    assert probe.state("sim") == probe.state("executor") == "active"
    assert probe.until(lambda: len(logged) > 20)
    assert bringup.stop(signal.SIGTERM) == 0, bringup.text()
    assert probe.state("executor") == probe.state("sim") == "inactive"
    assert np.abs(logged[-1].velocity).max() == 0
    assert sim.process.poll() is None and executor.process.poll() is None


def test_without_autostart_everything_is_ready_and_nothing_moves(spawn, probe) -> None:
    bringup = spawn(BRINGUP, nodes=NODES, autostart=False)
    spawn(SIM), spawn(EXECUTOR)
    assert probe.until(lambda: "sim, executor: inactive" in bringup.text(), 180), bringup.text()
    assert probe.state("sim") == probe.state("executor") == "inactive"


def test_refusing_node_is_named_with_its_reason(spawn, probe) -> None:
    bringup = spawn(BRINGUP, nodes=NODES)
    spawn(SIM, robot="sim_cel"), spawn(EXECUTOR)
    bringup.process.wait(180)
    assert bringup.process.returncode == 1
    assert "node 'sim' cannot configure: unknown robot 'sim_cel'; did you mean 'sim_cell'?" in bringup.text()
    assert probe.state("executor") == "unconfigured"


def test_refused_activation_takes_the_others_down_again(spawn, probe) -> None:
    bringup = spawn(BRINGUP, nodes=NODES, settle_s=1.0)
    spawn(SIM, controller="trajectory"), spawn(EXECUTOR)
    bringup.process.wait(180)
    assert bringup.process.returncode == 1
    assert "node 'executor' cannot activate: nobody listens to /left_forward" in bringup.text()
    assert probe.state("sim") == "inactive"


def test_a_node_that_keeps_refusing_is_configured_anew(spawn, probe) -> None:
    deaf = DeafAtFirst(probe.node)
    bringup = spawn(BRINGUP, nodes="['deaf']", settle_s=4.0)
    assert probe.until(lambda: "deaf: active" in bringup.text(), 180), bringup.text()
    configure, activate = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
    assert [asked for asked in deaf.asked if asked != activate] == [configure, Transition.TRANSITION_CLEANUP, configure]
    assert deaf.asked[-1] == activate


def test_a_lost_answer_is_read_from_the_state(spawn, probe) -> None:
    mute = Mute(probe.node)
    bringup = spawn(BRINGUP, nodes="['mute']")
    assert probe.until(lambda: "mute: active" in bringup.text(), 180), bringup.text()
    assert mute.asked == [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]


def test_a_node_that_never_answers_is_named(spawn, probe) -> None:
    Mute(probe.node, lost=1000)
    bringup = spawn(BRINGUP, nodes="['mute']", appear_s=3.0)
    bringup.process.wait(180)
    assert bringup.process.returncode == 1
    assert "node 'mute' does not answer for 3 s; see its log" in bringup.text()


def test_a_process_that_ends_while_it_is_asked_is_named(spawn, probe) -> None:
    mute = Mute(probe.node, lost=1000)
    bringup = spawn(BRINGUP, nodes="['mute']")
    assert probe.until(lambda: mute.questions), bringup.text()
    probe.close()
    bringup.process.wait(180)
    assert bringup.process.returncode == 1
    assert "mute/get_state does not answer; did the process end?" in bringup.text()


class Mute:
    """A node whose answers about transitions are lost, and the first ones about its state."""

    def __init__(self, node, lost=1) -> None:
        self.asked: list[int] = []
        self.questions = 0
        self._state = State.PRIMARY_STATE_UNCONFIGURED
        change = node.create_service(ChangeState, "mute/change_state", self._change)
        change.send_response = lambda *_: None
        state = node.create_service(GetState, "mute/get_state", self._answer)
        answer = state.send_response
        state.send_response = lambda *arguments: answer(*arguments) if self.questions > lost else None

    def _change(self, request, response):
        self.asked.append(request.transition.id)
        self._state += 1  # unconfigured, inactive, active
        return response

    def _answer(self, _, response):
        self.questions += 1
        response.current_state.id = self._state
        return response


class DeafAtFirst:
    """A node that refuses to activate until it was configured twice."""

    def __init__(self, node) -> None:
        self.asked: list[int] = []
        self._state = State.PRIMARY_STATE_UNCONFIGURED
        node.create_service(ChangeState, "deaf/change_state", self._change)
        node.create_service(GetState, "deaf/get_state", self._answer)

    def _change(self, request, response):
        wanted = request.transition.id
        self.asked.append(wanted)
        hears = self.asked.count(Transition.TRANSITION_CONFIGURE) > 1
        response.success = wanted != Transition.TRANSITION_ACTIVATE or hears
        if response.success:
            goals = {
                Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
                Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
                Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
                Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
            }
            self._state = goals[wanted]
        return response

    def _answer(self, _, response):
        response.current_state.id = self._state
        return response


def test_absent_node_is_named(spawn) -> None:
    bringup = spawn(BRINGUP, nodes=NODES, appear_s=0.5)
    bringup.process.wait(180)
    assert bringup.process.returncode == 1
    assert "node 'sim' did not appear within 0.5 s; is its process running?" in bringup.text()


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="nodes must name every node once"):
        BringupConfig(nodes=("sim", "sim"))
    with pytest.raises(ConfigError, match="appear_s must be positive, found 0"):
        BringupConfig(appear_s=0)
