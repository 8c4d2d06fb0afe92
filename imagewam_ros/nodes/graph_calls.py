# SPDX-License-Identifier: Apache-2.0
"""Blocking calls into a running graph, for a program's own thread beside the one that spins its node."""

import contextlib
import threading
import time
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.task import Future

from imagewam_ros.core.errors import GraphError

ANSWER_S, READY_S = 20.0, 300.0
"""Longest wait for an answer, and for a node that loads a policy."""

STEPS = {
    "configure": (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    "activate": (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
}
"""Transition of each step and the state after it."""


class GraphCalls:
    """Services and lifecycles as seen from `node`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def change(self, name: str, step: str, appears_s: float = ANSWER_S) -> None:
        """Bring a node into the state after `step`, unless it is there. Raises GraphError when it does not go.

        appears_s is the longest wait for a node that is being started.
        """
        transition, wanted = STEPS[step]
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            answer = self.call(GetState, f"{name}/get_state", GetState.Request(), ANSWER_S, appears_s)
            if answer is not None and answer.current_state.id == wanted:
                return
            request = ChangeState.Request(transition=Transition(id=transition))
            changed = self.call(ChangeState, f"{name}/change_state", request, READY_S)
            if changed is not None and not changed.success:
                break
        raise GraphError(f"{name} could not be brought to {step}; is the graph up, with policy:=none?")

    def call(
        self, kind: type, name: str, request: Any, patience_s: float = ANSWER_S, appears_s: float = ANSWER_S
    ) -> Any:
        """Return the answer of a service, None when it is lost. Raises GraphError when there is no such service."""
        client: Any = self._node.create_client(kind, name)
        try:
            if not client.wait_for_service(timeout_sec=appears_s):
                raise GraphError(f"no service {name}; is the graph up, with policy:=none?")
            with contextlib.suppress(GraphError):
                return self.wait(client.call_async(request), name, patience_s)
            return None
        finally:
            self._node.destroy_client(client)

    def wait(self, future: "Future[Any]", what: str, patience_s: float = ANSWER_S) -> Any:
        """Return a future's result. Raises GraphError naming `what` when it does not come."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(patience_s):
            raise GraphError(f"nothing from {what} for {patience_s:g} s; is the graph up?")
        return future.result()
