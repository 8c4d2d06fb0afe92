# SPDX-License-Identifier: Apache-2.0
"""Drive the lifecycle of the cell's nodes: configure all, then activate all, the executor last.

When a node refuses, what is already active is deactivated again and the error names the node and
its reason. When this process ends, the nodes are deactivated in reverse order, so the arms come to
rest before anything they depend on goes away.
"""

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.nodes import parameters, qos
from imagewam_ros.nodes.spin import run

CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
WORDS = {CONFIGURE: "configure", ACTIVATE: "activate", DEACTIVATE: "deactivate", CLEANUP: "clean up"}
RESTING = (
    State.PRIMARY_STATE_UNCONFIGURED,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_ACTIVE,
    State.PRIMARY_STATE_FINALIZED,
)
"""States that last; the others are transitions under way."""
POLL_S = 0.1
ANSWER_S = 2.0
"""An answer that takes longer may never come: DDS loses what is sent before it has matched a new client."""
SHUTDOWN_S = 1.0
"""All deactivations at the end together; whoever started us waits no longer than this."""


@dataclass(frozen=True)
class BringupConfig:
    """nodes are driven in this order. autostart false stops at inactive.

    appear_s: until a node's process answers. transition_s: one transition, which may load a large
    checkpoint. settle_s: how long an activation is tried again, because topics take a moment to connect; halfway
    through, the node is configured anew.
    """

    nodes: tuple[str, ...] = ("policy", "executor")
    autostart: bool = True
    appear_s: float = 60.0
    transition_s: float = 600.0
    settle_s: float = 15.0

    def __post_init__(self) -> None:
        if not self.nodes or len(set(self.nodes)) != len(self.nodes):
            raise ConfigError(f"nodes must name every node once, found {list(self.nodes)}")
        for name in ("appear_s", "transition_s", "settle_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")


class BringupNode(Node):
    """Asks one node after another; a thread waits for the answers."""

    def __init__(self) -> None:
        super().__init__("bringup", automatically_declare_parameters_from_overrides=True)
        self._config = parameters.declare(self, BringupConfig)
        self.finished, self.exit_status = False, 0
        self._ending = threading.Event()
        self._active: list[str] = []
        self._configured_in_s: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._change: dict[str, Any] = {
            name: self.create_client(ChangeState, f"{name}/change_state") for name in self._config.nodes
        }
        self._state: dict[str, Any] = {
            name: self.create_client(GetState, f"{name}/get_state") for name in self._config.nodes
        }
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self._work = threading.Thread(target=self._bring_up, daemon=True)
        self._work.start()

    def halt(self, reason: str) -> None:
        """Deactivate what still answers, the last node first."""
        self._ending.set()
        self._work.join(POLL_S * 5)
        end_s = time.monotonic() + SHUTDOWN_S
        for name in reversed(self._active):
            if self._change[name].service_is_ready():
                answer = self._change[name].call_async(_request(DEACTIVATE))
                while not answer.done() and self._change[name].service_is_ready() and time.monotonic() < end_s:
                    rclpy.spin_once(self, timeout_sec=POLL_S / 2)

    def _bring_up(self) -> None:
        config = self._config
        try:
            for name in config.nodes:
                self._wait_for(name)
            for name in config.nodes:
                self._configure(name)
            for name in config.nodes if config.autostart else ():
                self._activate(name)
                self._active.append(name)
        except GraphError as error:
            if self._ending.is_set():
                return
            self.get_logger().error(str(error))
            while self._active:
                with contextlib.suppress(GraphError):  # one that died needs no deactivation
                    self._changed(self._active.pop(), DEACTIVATE, State.PRIMARY_STATE_INACTIVE)
            self.exit_status, self.finished = 1, True
        else:
            self.get_logger().info(f"{', '.join(config.nodes)}: {'active' if config.autostart else 'inactive'}")

    def _wait_for(self, name: str) -> None:
        end_s = time.monotonic() + self._config.appear_s
        while not (self._change[name].service_is_ready() and self._state[name].service_is_ready()):
            if self._ending.wait(POLL_S) or time.monotonic() > end_s:
                raise GraphError(
                    f"node {name!r} did not appear within {self._config.appear_s:g} s; is its process running?"
                )

    def _configure(self, name: str) -> None:
        begin_s = time.monotonic()
        self._drive(name, CONFIGURE, State.PRIMARY_STATE_INACTIVE, 0.0)
        self._configured_in_s[name] = time.monotonic() - begin_s

    def _activate(self, name: str) -> None:
        """Activate `name`; where it still refuses after half of settle_s, configure it anew once.

        DDS now and then misses the match of two endpoints for good, and only new endpoints mend that. A node that
        takes long to configure, such as one with a large checkpoint, is only asked again.
        """
        half_s = self._config.settle_s / 2
        if self._configured_in_s[name] < half_s:
            try:
                self._drive(name, ACTIVATE, State.PRIMARY_STATE_ACTIVE, half_s)
            except GraphError:
                self._drive(name, CLEANUP, State.PRIMARY_STATE_UNCONFIGURED, 0.0)
                self._configure(name)
            else:
                return
        self._drive(name, ACTIVATE, State.PRIMARY_STATE_ACTIVE, self._config.settle_s)

    def _drive(self, name: str, transition: int, goal: int, settle_s: float) -> None:
        """Bring `name` to the state `goal`, trying again for `settle_s`. Raises GraphError with the reason."""
        end_s = time.monotonic() + settle_s
        while self._state_of(name, self._config.appear_s) not in (goal, State.PRIMARY_STATE_ACTIVE):
            self._reasons.pop(name, None)
            if self._changed(name, transition, goal):
                return
            if time.monotonic() > end_s or self._ending.wait(POLL_S):
                raise GraphError(f"node {name!r} cannot {WORDS[transition]}: {self._reason(name)}")

    def _changed(self, name: str, transition: int, goal: int) -> bool:
        """Ask for a transition and say whether it went well; where no answer comes in time, the state tells."""
        answer = self._ask(self._change[name], _request(transition))
        if answer is not None:
            return bool(answer.success)
        end_s = time.monotonic() + self._config.transition_s
        while (state := self._state_of(name, end_s - time.monotonic())) not in RESTING:
            self._ending.wait(POLL_S)
        return state == goal

    def _state_of(self, name: str, patience_s: float) -> int:
        """Ask for a node's state until it answers. Raises GraphError after `patience_s`."""
        end_s = time.monotonic() + patience_s
        while (answer := self._ask(self._state[name], GetState.Request())) is None:
            if time.monotonic() > end_s:
                raise GraphError(f"node {name!r} does not answer for {patience_s:.0f} s; see its log")
        return int(answer.current_state.id)

    def _reason(self, name: str) -> str:
        """What the node last complained of on /diagnostics; it may arrive after the answer."""
        end_s = time.monotonic() + 10 * POLL_S
        while name not in self._reasons and time.monotonic() < end_s:
            self._ending.wait(POLL_S)
        text = self._reasons.get(name, "it gave no reason; see its log")
        return text.removeprefix("cannot configure: ").removeprefix("cannot activate: ")

    def _ask(self, client: Any, request: object) -> Any:
        """Call a service from the work thread; None when no answer comes. Raises GraphError when it goes away."""
        future = client.call_async(request)
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        end_s = time.monotonic() + ANSWER_S
        while not answered.wait(POLL_S):
            if self._ending.is_set() or not client.service_is_ready():
                client.remove_pending_request(future)
                raise GraphError(f"{client.srv_name} does not answer; did the process end?")
            if time.monotonic() > end_s:
                client.remove_pending_request(future)
                return None
        return future.result()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for name in self._config.nodes:
                if status.level == DiagnosticStatus.ERROR and status.name == self._full_name(name):
                    self._reasons[name] = status.message

    def _full_name(self, name: str) -> str:
        return f"{self.get_namespace().rstrip('/')}/{name}"


def _request(transition: int) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=transition))


def main() -> int:
    """Run the node."""
    return run(BringupNode)
