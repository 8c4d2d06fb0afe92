# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal, also over SSH. A terminal tells presses, not releases.

    w s   forward, back      i k   pitch      tab     left arm, right arm, both
    a d   left, right        j l   yaw        c o     close, open gripper
    r f   up, down           u m   roll       space   stop

A press moves for `press_s`; a held key repeats, so the motion goes on until shortly after it is let go.
"""

import contextlib
import os
import re
import termios
import tty
from typing import NamedTuple

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.jog import LEFT, RIGHT, Jog

PRESS_S = 0.15
"""Longer than the 33 ms at which terminals repeat a held key."""

CONTROL_SEQUENCE = re.compile(rb"\x1b(\[[0-9;?]*[@-~]|O.|.)?")
"""Arrows and function keys, which hold letters that nobody typed."""


class Key(NamedTuple):
    """What one key wishes: part of the jog, axis and sign."""

    part: str
    axis: int
    sign: float


KEYS = {
    "w": Key("linear", 0, 1.0),
    "s": Key("linear", 0, -1.0),
    "a": Key("linear", 1, 1.0),
    "d": Key("linear", 1, -1.0),
    "r": Key("linear", 2, 1.0),
    "f": Key("linear", 2, -1.0),
    "u": Key("angular", 0, 1.0),
    "m": Key("angular", 0, -1.0),
    "i": Key("angular", 1, 1.0),
    "k": Key("angular", 1, -1.0),
    "j": Key("angular", 2, 1.0),
    "l": Key("angular", 2, -1.0),
    "o": Key("gripper", 0, 1.0),
    "c": Key("gripper", 0, -1.0),
}
CHOICES = ((LEFT,), (RIGHT,), (LEFT, RIGHT))


class Keyboard:
    """A terminal as a `JogDevice`; its settings are put back when it is closed."""

    def __init__(self, terminal: str = "/dev/tty", press_s: float = PRESS_S) -> None:
        """Open a terminal for single keys. Raises DeviceError where there is none."""
        try:
            self._file = os.open(terminal, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise DeviceError(
                f"no terminal at {terminal} ({error.strerror}); start teleop_node in a terminal of its own"
            ) from error
        try:
            self._settings = termios.tcgetattr(self._file)
        except termios.error as error:
            os.close(self._file)
            raise DeviceError(f"{terminal} is not a terminal; give the one you type in, see tty") from error
        tty.setcbreak(self._file)
        self._press_ns = round(press_s * 1e9)
        self._until_ns: dict[Key, int] = {}
        self._choice = 0

    def read(self, now_ns: int) -> Jog:
        """Return the present wish. Raises DeviceError when the terminal is closed."""
        for letter in self._typed():
            self._take(letter, now_ns)
        jog = Jog.rest()
        sides = list(CHOICES[self._choice])
        for key, until_ns in self._until_ns.items():
            if now_ns < until_ns:
                part = getattr(jog, key.part)
                part[sides if key.part == "gripper" else (sides, key.axis)] += key.sign
                jog.enabled[sides] = True
        return jog

    def close(self) -> None:
        """Put the terminal back as it was."""
        if self._file >= 0:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._file, termios.TCSADRAIN, self._settings)
            os.close(self._file)
        self._file = -1

    def _typed(self) -> str:
        try:
            raw = os.read(self._file, 4096)
        except BlockingIOError:
            return ""
        except OSError:
            raw = b""
        if not raw:  # a terminal that waits raises, one that was closed ends
            self._until_ns.clear()
            raise DeviceError("the terminal is gone; start teleop_node again in another one")
        return CONTROL_SEQUENCE.sub(b"", raw).decode("ascii", "ignore").lower()

    def _take(self, letter: str, now_ns: int) -> None:
        if letter == "\t":
            self._choice = (self._choice + 1) % len(CHOICES)
        if letter in "\t ":
            self._until_ns.clear()
        elif letter in KEYS:
            self._until_ns[KEYS[letter]] = now_ns + self._press_ns
