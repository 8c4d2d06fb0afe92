# SPDX-License-Identifier: Apache-2.0
"""The PreviewGoal service: the goal image that the video head imagines, made in the gaps between chunks.

The work is cut into pieces of one forward each, done on the inference thread. A piece begins only when
nothing runs there and the next chunk is not due before the piece will be over, so chunks come as
without previews. One preview at a time; where no gap comes, it is refused with the reason.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future as Piece
from typing import Any, NamedTuple

import numpy as np
from rclpy.task import Future

from imagewam_ros.core.errors import ConfigError, ImageWamError, StaleObservation
from imagewam_ros.core.schema import Image, Observation
from imagewam_ros.core.sync import Synchroniser
from imagewam_ros.nodes import messages, topics
from imagewam_ros.nodes.inference import InferenceThread
from imagewam_ros.nodes.instructions import Instructions
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.preview import ahead_s, imagine, labelled
from imagewam_ros.srv import PreviewGoal

CHECK_S = 0.005
PATIENCE_S = 10.0
"""A preview that is not done by then is refused."""
MARGIN, QUANTILE, REMEMBERED = 1.5, 0.9, 48
"""A gap must be so many times this quantile of the last pieces; the longest may have been a first call."""
FRAME = "imagined_goal"


class Gap(NamedTuple):
    """left_ns until the next chunk's observation, None when no chunk is due; chunk_ns is what a chunk takes."""

    left_ns: int | None
    chunk_ns: int


class GoalPreviewServer:
    """Serve `policy/preview_goal` on `node` until its teardown."""

    def __init__(
        self,
        node: ManagedNode,
        inference: InferenceThread,
        sync: Synchroniser,
        instructions: Instructions,
        gap: Callable[[], Gap],
    ) -> None:
        self._node, self._inference, self._sync = node, inference, sync
        self._instructions, self._gap = instructions, gap
        self._done: Any = None  # rclpy's Future is generic on newer distributions only
        self._work: Iterator[Image | None] = iter(())
        self._piece: Piece[tuple[Image | None, int]] | None = None
        self._took_ns: deque[int] = deque(maxlen=REMEMBERED)
        self._began_ns = 0
        node.serve(PreviewGoal, topics.PREVIEW_GOAL, self._answer)
        self._timer = node.create_timer(CHECK_S, node.guarded(self._advance), clock=node.steady)
        self._timer.cancel()
        node.cleanup.callback(node.destroy_timer, self._timer)

    def end(self, reason: str) -> None:
        """Refuse the preview that is being made, if there is one."""
        self._finish(ImageWamError(reason))

    async def _answer(self, request: PreviewGoal.Request, response: PreviewGoal.Response) -> str:
        if not self._node.is_active:
            raise ImageWamError("the policy is not active, so it takes no observation; activate it first")
        if self._done is not None:
            raise ImageWamError("another preview is being made; call again when it is done")
        observation = self._observe(" ".join(request.instruction.split()) or self._instructions.text)
        policy = self._inference.policy
        self._work = imagine(policy, observation, request.seed)
        self._began_ns = self._node.steady.now().nanoseconds
        done = self._done = Future()
        self._timer.reset()
        goal: Any = await done
        response.image = messages.from_image(labelled(goal), observation.stamp_ns, FRAME)
        return (
            f"imagined for {ahead_s(policy):.2f} s after the observation, seed {request.seed}, told "
            f"{observation.instruction!r}; no camera saw it and the actions never see it"
        )

    def _observe(self, instruction: str) -> Observation:
        if not instruction:
            raise ConfigError("no instruction is running; name one in the request")
        observation = self._sync.observation(self._now_ns, instruction)
        if observation is None:
            raise StaleObservation("no observation yet: images and joint states do not pair so far; call again")
        return observation

    def _advance(self) -> None:
        """Take what a piece left, and begin the next one when there is time for it."""
        if self._piece is not None:
            if not self._piece.done():
                return
            piece, self._piece = self._piece, None
            error = piece.exception()
            if error is not None:
                known = isinstance(error, ImageWamError)
                self._finish(error if known else ImageWamError(f"preview failed: {type(error).__name__}: {error}"))
                return
            goal, took_ns = piece.result()
            self._took_ns.append(took_ns)
            if goal is not None:
                self._finish(goal)
                return
        if self._fits():
            self._piece = self._inference.submit(self._step)
        elif self._node.steady.now().nanoseconds - self._began_ns > PATIENCE_S * 1e9:
            text = (
                f"no time for a preview in {PATIENCE_S:g} s: a piece of it needs {self._needed_ns() / 1e9:.3f} s, and "
                "chunks leave no such gap; raise replan_period_s or let the policy rest"
            )
            self._finish(ImageWamError(text))

    def _fits(self) -> bool:
        """Whether a piece is over before the next chunk is due."""
        if self._inference.busy or self._instructions.changing:
            return False
        left_ns = self._gap().left_ns
        return left_ns is None or left_ns > self._needed_ns()

    def _needed_ns(self) -> int:
        if not self._took_ns:
            return self._gap().chunk_ns  # one forward with two images takes about as long
        return round(MARGIN * float(np.quantile(self._took_ns, QUANTILE)))

    def _step(self) -> tuple[Image | None, int]:
        """Do one piece; on the inference thread. Returns the goal, if it is done, and the time taken in ns."""
        start_ns = self._now_ns
        goal = next(self._work)
        return goal, self._now_ns - start_ns

    def _finish(self, outcome: Image | BaseException) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self._timer.cancel()
        self._piece = None
        if isinstance(outcome, BaseException):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    @property
    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
