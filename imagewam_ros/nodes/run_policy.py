# SPDX-License-Identifier: Apache-2.0
"""The RunPolicy action: one instruction for a limited time, with an end that has a reason.

It only sets and clears the instruction; without one the policy makes no chunks and the arms hold.
Whether the task succeeded is for others to judge: success here means that nothing went wrong.
"""

from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from imagewam_ros.action import RunPolicy
from imagewam_ros.core.errors import ImageWamError
from imagewam_ros.msg import ExecutorStatus
from imagewam_ros.nodes import qos, topics
from imagewam_ros.nodes.instructions import Instructions
from imagewam_ros.nodes.lifecycle import ManagedNode

CHECK_S = 0.2
LONGEST_S = 86400.0
UNABLE = {
    ExecutorStatus.INACTIVE: "the executor was deactivated",
    ExecutorStatus.FAULTED: "the executor faulted",
}


class RunPolicyServer:
    """Serve one goal at a time on `node`, by changing its instruction."""

    def __init__(self, node: ManagedNode, instructions: Instructions) -> None:
        self._node, self._instructions = node, instructions
        self._goal: Any = None  # rclpy's goal handle is generic on newer distributions only
        self._reserved = False
        self._executor = ExecutorStatus()
        self._began_ns, self._accepted_before = 0, 0
        self._ended: Any = Future()
        self._server = ActionServer(
            node,
            RunPolicy,
            topics.RUN,
            self._execute,
            goal_callback=self._consider,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )
        node.cleanup.callback(self._server.destroy)
        node.subscribe(ExecutorStatus, topics.STATUS, self._on_status, qos.STATUS)
        node.every(CHECK_S, self._check)

    def end(self, reason: str) -> None:
        """End the running goal, if there is one, as failed."""
        if self._goal is not None and not self._ended.done():
            self._ended.set_result(reason)

    def _consider(self, request: RunPolicy.Goal) -> GoalResponse:
        reason = self._objection(request)
        if reason:
            self._node.get_logger().warning(f"refused to run {request.instruction!r}: {reason}")
            return GoalResponse.REJECT
        self._reserved = True
        return GoalResponse.ACCEPT

    def _objection(self, request: RunPolicy.Goal) -> str:
        if not self._node.is_active:
            return "the policy is not active"
        if self._reserved:
            return "another run is not over yet; cancel it first"
        if not request.instruction.strip() or not 0 < request.timeout_s <= LONGEST_S:
            return f"an instruction and a timeout_s of 0 to {LONGEST_S:g} are needed"
        if request.mode not in (RunPolicy.Goal.RUN, RunPolicy.Goal.SHADOW):
            return f"mode {request.mode} is unknown; use RUN ({RunPolicy.Goal.RUN}) or SHADOW ({RunPolicy.Goal.SHADOW})"
        if request.mode == RunPolicy.Goal.SHADOW and not self._executor.shadow:
            return "shadow mode was asked for, but the executor moves the arms; start it with shadow:=true"
        if request.mode == RunPolicy.Goal.RUN and self._executor.shadow:
            return "the executor only watches the policy; ask for mode SHADOW, or start it without shadow:=true"
        return UNABLE.get(self._executor.state, "")

    async def _execute(self, goal: Any) -> RunPolicy.Result:
        request = goal.request
        self._began_ns, self._accepted_before = self._now_ns, self._executor.accepted
        self._ended = Future()
        self._goal = goal
        try:
            number = await self._instructions.set(request.instruction, request.seed)
            reason = str(await self._ended)
            self._instructions.rest(number)
        except ImageWamError as error:
            reason = str(error)
        finally:
            self._goal, self._reserved = None, False
        if goal.is_cancel_requested:
            goal.canceled()
        elif reason:
            goal.abort()
        else:
            goal.succeed()
        done = f"ran for {request.timeout_s:g} s"
        return RunPolicy.Result(success=not reason, reason=reason or done, chunks=self._chunks)

    def _check(self) -> None:
        """Give feedback, and end the run when its time is over or nothing can move any more."""
        if self._goal is None or self._ended.done():
            return
        self._began_ns = self._began_ns or self._now_ns  # it is 0 where /clock had not been heard yet
        elapsed_s = (self._now_ns - self._began_ns) / 1e9
        feedback = RunPolicy.Feedback(elapsed_s=elapsed_s, chunks=self._chunks, state=self._executor.state)
        self._goal.publish_feedback(feedback)
        if self._goal.is_cancel_requested:
            self._ended.set_result("cancelled")
        elif self._executor.state in UNABLE:
            self._ended.set_result(f"{UNABLE[self._executor.state]}: {self._executor.reason}")
        elif not self._node.count_publishers(topics.STATUS):
            self._ended.set_result("nobody tells the executor's status any more; did its process end?")
        elif elapsed_s >= self._goal.request.timeout_s:
            self._ended.set_result("")

    @property
    def _chunks(self) -> int:
        return max(int(self._executor.accepted) - self._accepted_before, 0)

    @property
    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _on_status(self, message: ExecutorStatus) -> None:
        self._executor = message
