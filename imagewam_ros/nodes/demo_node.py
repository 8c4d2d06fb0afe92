# SPDX-License-Identifier: Apache-2.0
"""Plays the demo's episodes on a running graph and writes down what happened.

One episode: reset the scene, tell the policy the instruction, wait for a chunk of the new scene,
activate the executor, wait for success or for the time to be over, deactivate the executor.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg
from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError, ImageWamError
from imagewam_ros.demo_pictures import Video, tiles
from imagewam_ros.msg import ActionChunk, ExecutorCommand, ExecutorStatus, SimStatus
from imagewam_ros.nodes import messages, parameters, qos, topics
from imagewam_ros.nodes.demo_log import EpisodeLog, Shot, Span
from imagewam_ros.nodes.spin import run
from imagewam_ros.srv import ResetScene, SetInstruction

T = TypeVar("T")
Service: TypeAlias = "Client[Any, Any]"  # rclpy of Jazzy and older cannot be subscripted
Steps = Generator[None, None, T]
"""A script that is advanced by a timer and yields whenever it has to wait."""

STEP_S = 0.02
AGAIN_S = 3.0
"""After this long without an answer the executor's state is asked for again."""
LINGER_S = 0.5
"""Simulated time after a success that still goes into the video."""


@dataclass(frozen=True)
class DemoConfig:
    """episode_s is the simulated time an episode may take; files go into the folder `out`.

    ready_s is the longest wait for the graph: loading and warming up a policy takes a while on slow cores. answer_s is
    that for one answer of a running graph.
    """

    robot: str = "sim_cell"
    episodes: int = 5
    seed: int = 0
    episode_s: float = 20.0
    ready_s: float = 180.0
    answer_s: float = 20.0
    video_hz: float = 10.0
    out: str = "demo"

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.episode_s <= 0:
            raise ConfigError(f"episodes and episode_s must be positive, found {self.episodes} and {self.episode_s}")


class DemoNode(Node):
    """Drives the graph through its services only, as an operator's program would."""

    def __init__(self) -> None:
        super().__init__("demo", automatically_declare_parameters_from_overrides=True)
        self._config = parameters.declare(self, DemoConfig)
        self._robot = load_embodiment(self._config.robot)
        self._out = Path(self._config.out)
        self._video = Video(self._out / "demo.mp4", self._config.video_hz)
        self.finished, self.exit_status = False, 0
        self._log, self._status = EpisodeLog(), ExecutorStatus()
        self._sim, self._sim_heard_s = SimStatus(), 0.0
        self._listen()
        self._reset: Service = self.create_client(ResetScene, topics.SIM_RESET)
        self._instruct: Service = self.create_client(SetInstruction, topics.SET_INSTRUCTION)
        self._state: Service = self.create_client(GetState, "executor/get_state")
        self._change: Service = self.create_client(ChangeState, "executor/change_state")
        self._reset_fault: Service = self.create_client(Trigger, topics.RESET_FAULT)
        self._script = self._play()
        self.create_timer(STEP_S, self._advance, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def halt(self, reason: str) -> None:
        """Make the video playable."""
        self._video.close()

    def _listen(self) -> None:
        """Subscribe; what comes often is kept serialised, so that listening costs little."""
        kept: tuple[tuple[Any, str, Any, Callable[[bytes], None]], ...] = (
            (ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG, lambda raw: self._log.commands.append(raw)),
            (JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES, lambda raw: self._log.joints.append(raw)),
            (ImageMsg, topics.FRONT_IMAGE, qos.IMAGES, self._on_front),
            *((ImageMsg, camera.topic, qos.IMAGES, self._image_keeper(camera.name)) for camera in self._robot.cameras),
        )
        for kind, topic, profile, callback in kept:
            self.create_subscription(kind, topic, callback, profile, raw=True)
        self.create_subscription(ActionChunk, topics.CHUNK, lambda chunk: self._log.chunks.append(chunk), qos.CHUNKS)
        self.create_subscription(SimStatus, topics.SIM_STATUS, self._on_sim, qos.STATUS)
        self.create_subscription(ExecutorStatus, topics.STATUS, self._on_status, qos.STATUS)

    def _on_front(self, serialised: bytes) -> None:
        self._log.shots.append(Shot(serialised, dict(self._log.newest), self._sim))

    def _image_keeper(self, camera: str) -> Callable[[bytes], None]:
        def keep(serialised: bytes) -> None:
            self._log.newest[camera] = serialised
            self._log.images[camera] += 1

        return keep

    def _on_sim(self, message: SimStatus) -> None:
        self._sim, self._sim_heard_s = message, time.monotonic()

    def _on_status(self, message: ExecutorStatus) -> None:
        self._status = message

    def _advance(self) -> None:
        """Run the script until it waits again; its end or its failure is the end of the demo."""
        if self.finished:
            return
        try:
            next(self._script)
        except StopIteration:
            self.finished = True
        except ImageWamError as error:
            print(f"error: {error}", flush=True)
            self.finished, self.exit_status = True, 1

    def _play(self) -> Steps[None]:
        """Play all episodes, one after the other."""
        print("waiting until all nodes are active", flush=True)
        yield from self._until_active()
        yield from self._transition(Transition.TRANSITION_DEACTIVATE)
        for number in range(1, self._config.episodes + 1):
            yield from self._episode(number)

    def _until_active(self) -> Steps[None]:
        end = time.monotonic() + self._config.ready_s
        found = "silent"
        while time.monotonic() < end:
            try:
                answer = yield from self._call(self._state, GetState.Request(), AGAIN_S)
            except GraphError:
                continue  # it is not there yet, or the answer came before DDS had matched this client
            found = answer.current_state.label
            if answer.current_state.id == State.PRIMARY_STATE_ACTIVE:
                return
            yield
        raise GraphError(f"executor is {found} after {self._config.ready_s:.0f} s, expected active; see the log files")

    def _episode(self, number: int) -> Steps[None]:
        seed = self._config.seed + number - 1
        scene = yield from self._call(self._reset, ResetScene.Request(seed=seed))
        answer = yield from self._call(self._instruct, SetInstruction.Request(instruction=scene.instruction))
        for what, done in (("sim/reset", scene), ("policy/set_instruction", answer)):
            if not done.success:
                raise GraphError(f"{what} of seed {seed} refused: {done.message}")
        title = f"episode {number}/{self._config.episodes}, seed {seed}: {scene.instruction}"
        print(title, flush=True)
        seen, patience_s = (lambda: self._sees(seed, answer.instruction_id)), self._config.answer_s
        yield from self._wait(seen, "policy/action_chunk", patience_s)
        self._log, before, before_s = EpisodeLog(), self._sim, self._sim_heard_s
        yield from self._transition(Transition.TRANSITION_ACTIVATE)
        limit_s, patience_s = before.episode_time_s + self._config.episode_s, 30 * self._config.episode_s
        yield from self._wait(lambda: self._sim.success or self._sim.episode_time_s >= limit_s, "end", patience_s)
        success, end_s = self._sim.success, self._sim.episode_time_s
        print(f"  {'success' if success else 'NO success'} in {end_s - before.episode_time_s:.1f} s", flush=True)
        yield from self._wait(lambda: self._sim.episode_time_s >= end_s + LINGER_S, "end", patience_s)
        span = Span(self._sim.episode_time_s - before.episode_time_s, self._sim_heard_s - before_s)
        fault = self._status.reason if self._status.state == ExecutorStatus.FAULTED else ""
        yield from self._transition(Transition.TRANSITION_DEACTIVATE)
        if fault:
            print(f"  the executor faulted: {fault}", flush=True)
            yield from self._call(self._reset_fault, Trigger.Request())
        log, self._log = self._log, EpisodeLog()
        log.record(self._robot, self._status, self._sim, success, span).save(self._out / f"episode_{number}.npz")
        for front, views, status in log.frames(self._robot):
            since_s = status.episode_time_s - before.episode_time_s
            caption = f"{title}   {since_s:4.1f} s{'   success' if status.success else ''}"
            self._video.add(tiles(front, views, caption))

    def _sees(self, seed: int, instruction_id: int) -> bool:
        """Whether the policy's newest chunk is of this scene and of this instruction."""
        if self._sim.seed != seed or not self._log.chunks:
            return False
        newest = self._log.chunks[-1]
        reset_ns = messages.stamp_ns(self._sim.header.stamp) - round(1e9 * float(self._sim.episode_time_s))
        return messages.stamp_ns(newest.header.stamp) > reset_ns and int(newest.instruction_id) == instruction_id

    def _transition(self, transition: int) -> Steps[None]:
        answer = yield from self._call(self._change, ChangeState.Request(transition=Transition(id=transition)))
        if not answer.success:
            verb = "activated" if transition == Transition.TRANSITION_ACTIVATE else "deactivated"
            raise GraphError(f"executor could not be {verb}; log/executor.log says why")

    def _call(self, client: Service, request: object, patience_s: float = 0.0) -> Steps[Any]:
        """Call a service and return its answer, within answer_s unless told otherwise."""
        patience_s = patience_s or self._config.answer_s
        yield from self._wait(client.service_is_ready, client.srv_name, patience_s)
        future = client.call_async(request)
        yield from self._wait(future.done, client.srv_name, patience_s)
        return future.result()

    def _wait(self, happened: Callable[[], bool], what: str, patience_s: float) -> Steps[None]:
        """Wait until something happened. Raises GraphError naming `what` when it does not."""
        end = time.monotonic() + patience_s
        while not happened():
            if time.monotonic() > end:
                raise GraphError(f"nothing from {what} for {patience_s:.0f} s; see the log files")
            yield


def main() -> int:
    """Run the node."""
    return run(DemoNode)
