# SPDX-License-Identifier: Apache-2.0
"""A gamepad for both arms, by the button and axis names that Linux gives every gamepad.

    left shoulder held   left arm moves         right shoulder held   right arm moves (both: both)
    left stick           forward/back, left/right                     triggers  up (right), down (left)
    right stick          pitch, yaw             cross left/right      roll
    lower button         close gripper          right button          open gripper

Letting the shoulder go stops the arm. Source: kernel.org, Documentation/input/gamepad.rst.
"""

from collections.abc import Mapping

import numpy as np

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.events import EV_ABS, EV_KEY, EV_SYN, SYN_DROPPED, Axis, EventStream, InputEvent
from imagewam_ros.teleop.jog import Jog, Stick

ABS_X, ABS_Y, ABS_Z, ABS_RX, ABS_RY, ABS_RZ, ABS_HAT0X = 0, 1, 2, 3, 4, 5, 16
BTN_SOUTH, BTN_EAST, BTN_TL, BTN_TR = 0x130, 0x131, 0x136, 0x137
TRIGGERS = (ABS_Z, ABS_RZ)
"""Triggers rest at their minimum, sticks in the middle."""


class Gamepad:
    """One gamepad as a `JogDevice`."""

    def __init__(self, stream: EventStream, stick: Stick | None = None) -> None:
        """Read from `stream`. Raises DeviceError when it lacks a gamepad's sticks."""
        absent = [code for code in (ABS_X, ABS_Y, ABS_RX, ABS_RY) if code not in stream.axes]
        if absent:
            raise DeviceError(f"this device lacks the stick axes {absent}; choose the gamepad's event-joystick device")
        self._stream, self._stick = stream, stick or Stick()
        self._axes: dict[int, float] = {}
        self._keys: set[int] = set()

    def read(self, now_ns: int) -> Jog:
        """Return the present wish; a lost device lets everything go."""
        try:
            for event in self._stream.read(now_ns):
                self._take(event)
        except DeviceError:
            self._let_go()
            raise
        jog = Jog.rest()
        jog.enabled[:] = (BTN_TL in self._keys, BTN_TR in self._keys)
        jog.linear[:] = (-self._at(ABS_Y), -self._at(ABS_X), self._pressed(ABS_RZ) - self._pressed(ABS_Z))
        jog.angular[:] = (self._axes.get(ABS_HAT0X, 0.0), -self._at(ABS_RY), -self._at(ABS_RX))
        jog.gripper[:] = float(BTN_EAST in self._keys) - float(BTN_SOUTH in self._keys)
        return jog

    def close(self) -> None:
        """Release the device."""
        self._stream.close()

    def _take(self, event: InputEvent) -> None:
        if event.kind == EV_SYN and event.code == SYN_DROPPED:
            self._let_go()
        elif event.kind == EV_KEY:
            (self._keys.add if event.value else self._keys.discard)(event.code)
        elif event.kind == EV_ABS and event.code in self._stream.axes:
            self._axes[event.code] = share(self._stream.axes, event)

    def _let_go(self) -> None:
        """Forget what is held: after lost events nobody knows."""
        self._axes.clear()
        self._keys.clear()

    def _at(self, code: int) -> float:
        return self._stick.shaped(self._axes.get(code, 0.0))

    def _pressed(self, code: int) -> float:
        """Return a trigger's pull from 0 to 1."""
        return self._stick.shaped(float(np.clip((self._axes.get(code, -1.0) + 1) / 2, 0.0, 1.0)))


def share(axes: Mapping[int, Axis], event: InputEvent) -> float:
    """Return an absolute event's value in [-1, 1]."""
    return axes[event.code].share(event.value)
