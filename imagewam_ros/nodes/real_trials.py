# SPDX-License-Identifier: Apache-2.0
"""Judged trials on the running graph: bring a policy up, run it by the RunPolicy action, ask the operator.

The graph runs without a policy of its own (`imagewam up policy:=none`). The executor is active only during a trial,
so the arms hold in between. A policy is started anew for every trial, so its start tells nobody which one it is.
Whatever ends the program, the executor that it activated is deactivated first.
"""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple, TextIO

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action.client import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image as ImageMsg
from std_srvs.srv import Trigger

from imagewam_ros.action import RunPolicy
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import GraphError, ImageWamError
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.schema import Image
from imagewam_ros.evaluation.real import LABELS, Book, RealTrial, blend, difference, read_picture, write_picture
from imagewam_ros.graph import Death, Process, settings
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.graph_calls import READY_S, GraphCalls
from imagewam_ros.nodes.spin import run
from imagewam_ros.supervisor import Supervisor

OVERLAY_S = 0.2
HEARS_S = 3.0
"""Longest time until a policy knows that the executor is active."""

BRAKES_S, ENDS_S = 3.0, 4.0
"""Longest waits for the executor that the thread deactivates, and for the policy's process, when the program ends."""

QUIT, DISCARD = "q", "d"
VERDICTS = {"y": LABELS[0], "n": LABELS[1], DISCARD: DISCARD}


class Ran(NamedTuple):
    """What came of one run."""

    duration_s: float
    chunks: int
    ended: str


class RealTrials(Node):
    """Works through the book on a thread, while callbacks run; `finished` at its end or at the operator's wish."""

    def __init__(self, book: Book, source: TextIO) -> None:
        config = book.config
        super().__init__("real_trials", parameter_overrides=[Parameter("use_sim_time", value=config.use_sim_time)])
        self.finished, self.exit_status = False, 0
        self._graph = GraphCalls(self)
        self._book, self._robot = book, load_embodiment(config.robot)
        self._camera = self._robot.cameras[0]
        self._live: ImageMsg | None = None
        stored = config.out / "reference.png"
        path = config.reference or (stored if stored.exists() else None)
        self._reference = read_picture(path) if path else None
        self._answers: queue.Queue[str] = queue.Queue()
        self._died, self._ending = threading.Event(), threading.Event()
        self._moving = False
        self._runs: Any = ActionClient(self, RunPolicy, topics.RUN)
        self._overlay_out = self.create_publisher(ImageMsg, topics.START_OVERLAY, qos.IMAGES)
        self.create_subscription(ImageMsg, self._camera.topic, self._on_image, qos.IMAGES)
        self.create_timer(OVERLAY_S, self._publish_overlay)
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def halt(self, reason: str) -> None:
        """Leave no executor active that we activated: the thread deactivates it and, where it hangs, this does."""
        self._ending.set()
        self._answers.put(QUIT)
        self._spin_while(lambda: self._moving and self._worker.is_alive(), BRAKES_S)
        if self._moving:
            client: Any = self.create_client(ChangeState, "executor/change_state")
            if client.wait_for_service(timeout_sec=1.0):
                request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
                answer = client.call_async(request)
                self._spin_while(lambda: not answer.done(), BRAKES_S)
        self._spin_while(self._worker.is_alive, ENDS_S)

    def _spin_while(self, condition: Callable[[], bool], patience_s: float) -> None:
        end = time.monotonic() + patience_s
        while condition() and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.05)

    def _read(self, source: TextIO) -> None:
        for line in source:
            self._answers.put(line.strip().lower())
        self._answers.put(QUIT)

    def _on_image(self, message: ImageMsg) -> None:
        self._live = message

    def _publish_overlay(self) -> None:
        """Show the start's reference over the live picture."""
        live = self._live
        if live is not None and self._reference is not None:
            shown = blend(self._reference, messages.to_image(live, self._camera))
            self._overlay_out.publish(
                messages.from_image(shown, messages.stamp_ns(live.header.stamp), live.header.frame_id)
            )

    def _work(self) -> None:
        status = 2
        try:
            while (number := self._book.next) is not None and self._trial(number):
                pass
            status = 0
        except (ImageWamError, OSError) as error:
            print(f"error: {error}", flush=True)
        finally:
            self.exit_status, self.finished = status, True

    def _trial(self, number: int) -> bool:
        """Make one trial. False when the operator has had enough."""
        config, policy = self._book.config, self._book.order[number]
        self._graph.change("executor", "deactivate")
        with self._policy(config.policies[policy]):
            begin = self._ask(
                f"trial {number + 1} of {len(self._book.order)}: put the cell into its start pose "
                f"({topics.START_OVERLAY} shows it); Enter begins, {QUIT} quits"
            )
            if begin == QUIT:
                return False
            apart = self._note_start(number)
            try:
                if not self._ready():
                    return False
                ran = self._run(number)
            finally:
                self._rest()
            label = self._verdict(f"ended after {ran.duration_s:.1f} s ({ran.ended})")
        if label in LABELS:
            when = datetime.now(timezone.utc).isoformat(timespec="seconds")
            block = number // len(config.policies)
            self._book.write(RealTrial(number, block, policy, label, *ran, when, apart))
        return label != QUIT

    def _verdict(self, said: str) -> str:
        choice = f"y success, n failure, {DISCARD} discard, {QUIT} quit"
        while (answer := self._ask(f"{said}; {choice}")) not in (*VERDICTS, QUIT):
            said = f"{answer!r} means nothing"
        return VERDICTS.get(answer, answer)

    def _ask(self, question: str) -> str:
        """Return the line that is typed after the question; what was typed before it meant something else."""
        with contextlib.suppress(queue.Empty):
            while self._answers.get_nowait() != QUIT:
                pass
            return QUIT
        print(question, flush=True)
        return self._answers.get()

    def _note_start(self, number: int) -> float | None:
        """Keep the start's picture and its overlay; the first one becomes the reference."""
        folder, live = self._book.config.out, self._live
        if live is None:
            raise GraphError(f"no picture from {self._camera.topic}; is the camera's driver running?")
        picture: Image = messages.to_image(live, self._camera)
        write_picture(folder / "starts" / f"{number}.png", picture)
        if self._reference is None:
            self._reference = picture
            write_picture(folder / "reference.png", picture)
        write_picture(folder / "starts" / f"{number}_overlay.png", blend(self._reference, picture))
        return round(difference(self._reference, picture), 2)

    def _ready(self) -> bool:
        """Activate the executor; a fault is reset when the operator says so. False when that is not wanted."""
        self._moving = True  # before the look at _ending, so that halt sees the one or this the other
        while not self._ending.is_set():
            try:
                self._graph.change("executor", "activate")
            except GraphError:
                why = "the executor does not activate; its log says why"
                if self._ask(f"{why}. Remove the cause; Enter resets it, {QUIT} quits") == QUIT:
                    return False
                self._graph.call(Trigger, topics.RESET_FAULT, Trigger.Request())
            else:
                return True
        return False

    def _rest(self) -> None:
        """Deactivate the executor; that needs no policy that answers."""
        self._graph.change("executor", "deactivate")
        self._moving = False

    def _run(self, number: int) -> Ran:
        """Let the policy act until its time is over or the operator types. The arms hold afterwards.

        Raises GraphError when the policy refuses, dies or does not answer.
        """
        config = self._book.config
        if not self._runs.wait_for_server(timeout_sec=READY_S):
            raise GraphError(f"no action {topics.RUN}; policy.log in {config.out} says why")
        handle = self._accepted(RunPolicy.Goal(instruction=config.instruction, timeout_s=config.timeout_s, seed=number))
        print(f"running; Enter stops, {QUIT} stops and quits", flush=True)
        began, done = time.monotonic(), handle.get_result_async()
        typed: str | None = None
        while typed is None and not done.done():
            if self._died.is_set():
                raise GraphError(f"the policy died; policy.log in {config.out} says why")
            with contextlib.suppress(queue.Empty):
                typed = self._answers.get(timeout=0.05)
        duration_s = time.monotonic() - began
        if typed is not None:
            handle.cancel_goal_async()
            self._rest()
        if typed == QUIT:
            self._answers.put(QUIT)  # the verdict's question meets it
        answer = self._graph.wait(done, "the policy, which was told to stop,").result
        ended = answer.reason if typed is None else "stopped by the operator"
        return Ran(round(duration_s, 2), int(answer.chunks), ended)

    def _accepted(self, goal: RunPolicy.Goal) -> Any:
        """Ask until the policy runs: it may hear later than we do that the executor is active. Raises GraphError."""
        end = time.monotonic() + HEARS_S
        while not (handle := self._graph.wait(self._runs.send_goal_async(goal), "the run's acceptance")).accepted:
            if time.monotonic() > end or self._ending.wait(0.1):
                raise GraphError(f"the policy refused to run {goal.instruction!r}; policy.log says why")
        return handle

    @contextlib.contextmanager
    def _policy(self, name: str) -> Iterator[None]:
        """Start a policy node, and end it."""
        config = self._book.config
        parameters = {"robot": config.robot, "checkpoint": str(find_checkpoint(name)), "device": config.device}
        process = Process("policy", "policy_node", Death.LEAVES_GRAPH, dict(parameters))
        chosen = {"namespace": config.namespace, "use_sim_time": str(config.use_sim_time).lower()}
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((config.out / "policy.log").open("a", buffering=1, encoding="utf8"))
            supervisor = Supervisor((process,), settings(chosen), lambda _, line: print(line, file=log))
            stack.enter_context(supervisor)
            done, self._died = threading.Event(), threading.Event()
            listening = threading.Thread(target=_pass_on, args=(supervisor, done, self._died))
            listening.start()
            stack.callback(listening.join)
            stack.callback(done.set)
            for step in ("configure", "activate"):
                self._graph.change("policy", step, READY_S)
            yield


def _pass_on(supervisor: Supervisor, done: threading.Event, died: threading.Event) -> None:
    while not done.is_set():
        if supervisor.poll():
            died.set()


def main(book: Book) -> int:
    """Work through a book on this terminal."""
    namespace = book.config.namespace.strip("/")
    names = ["--ros-args", "-r", f"__ns:=/{namespace}"] if namespace else []
    return run(lambda: RealTrials(book, sys.stdin), names)
