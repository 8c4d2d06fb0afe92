# SPDX-License-Identifier: Apache-2.0
"""The recorder by keyboard: one key per service, and a line whenever its status changes."""

import contextlib
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Any, TextIO

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from std_srvs.srv import Trigger

from imagewam_ros.msg import EpisodeStatus
from imagewam_ros.nodes import qos, topics
from imagewam_ros.nodes.spin import run

KEYS = {"s": "start", "e": "stop", "y": "success", "n": "failure", "d": "discard"}
QUIT = "q"
STATES = {
    EpisodeStatus.IDLE: "idle",
    EpisodeStatus.RECORDING: "recording",
    EpisodeStatus.SAVING: "saving",
    EpisodeStatus.FAILED: "failed",
}
HELP = ", ".join(f"{key} {name}" for key, name in KEYS.items()) + f", {QUIT} quit"
SERVICE_S = 20.0


class RecorderKeys(Node):
    """Brings the recorder up, then calls a service for every key; `finished` after `q` or the end of input."""

    def __init__(self, source: TextIO) -> None:
        super().__init__("recorder_keys")
        self.finished, self.exit_status = False, 0
        self._source, self._told = source, ""
        self.create_subscription(EpisodeStatus, topics.EPISODE_STATUS, self._on_status, qos.STATUS)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        with keystrokes(self._source) as keys:
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                request = ChangeState.Request(transition=Transition(id=transition))
                answer = self._call(ChangeState, "recorder/change_state", request)
                if answer is None or not answer.success:
                    _say("the recorder did not come up; its own output says why")
                    self.exit_status = 1
                    break
            else:
                _say(HELP)
                self._obey(keys)
        self.finished = True

    def _obey(self, keys: Iterator[str]) -> None:
        for key in keys:
            if key == QUIT:
                return
            if key in KEYS:
                answer = self._call(Trigger, f"{topics.EPISODE}/{KEYS[key]}", Trigger.Request())
                _say(f"{KEYS[key]}: {answer.message if answer else 'the recorder does not answer'}")
            elif key.strip():
                _say(f"{key!r} means nothing; {HELP}")

    def _call(self, kind: type, name: str, request: Any) -> Any:
        """Return the answer, or None when there is none in time."""
        client: Any = self.create_client(kind, name)
        done = threading.Event()
        if not client.wait_for_service(timeout_sec=SERVICE_S):
            return None
        future: Any = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        done.wait(SERVICE_S)
        return future.result() if future.done() else None

    def _on_status(self, message: EpisodeStatus) -> None:
        told = f"{STATES[message.state]} {message.episode} {message.label} {message.reason}".strip()
        if told != self._told:
            self._told = told
            _say(f"{told} ({message.messages} messages, {message.dropped} dropped)")


@contextlib.contextmanager
def keystrokes(source: TextIO) -> Iterator[Iterator[str]]:
    """Yield single keys of a terminal without waiting for Enter, or the characters of any other input."""
    if not source.isatty():
        yield iter(lambda: source.read(1), "")
        return
    before = termios.tcgetattr(source)
    tty.setcbreak(source)
    try:
        yield iter(lambda: source.read(1), "")
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def _say(text: str) -> None:
    print(text, flush=True)


def main(namespace: str = "") -> int:
    """Run the node on the terminal that it was started in, beside the recorder of a namespace."""
    names = ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"] if namespace.strip("/") else []
    return run(lambda: RecorderKeys(sys.stdin), names)
