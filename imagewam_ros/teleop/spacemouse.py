# SPDX-License-Identifier: Apache-2.0
"""SpaceMouse: six axes under one hand, one device per arm. Deflection moves, letting go stops.

    push and twist the cap   the tool moves and turns the same way
    first button             close gripper
    second button            open gripper

The device's own axes are right, back and down. Some models report deflections as EV_REL, others
as EV_ABS; a held EV_ABS deflection sends nothing more, while EV_REL repeats and silence means rest.
Source: full scale 350 from 3Dconnexion's HID reports, as spacenavd and the kernel pass them on.
"""

from collections.abc import Mapping

import numpy as np

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.core.schema import Floats
from imagewam_ros.teleop.events import EV_ABS, EV_KEY, EV_REL, EV_SYN, SYN_DROPPED, EventStream, InputEvent
from imagewam_ros.teleop.jog import LEFT, RIGHT, Jog, Stick

FULL_SCALE = 350.0
BTN_CLOSE, BTN_OPEN = 0x100, 0x101
SILENCE_NS = 100_000_000
"""A deflected EV_REL device repeats far more often than this."""

ROWS = {"left": LEFT, "right": RIGHT}


class SpaceMouse:
    """One SpaceMouse per side as one `JogDevice`."""

    def __init__(self, streams: Mapping[str, EventStream], stick: Stick | None = None) -> None:
        """Read from one stream per side, left, right or both. Raises DeviceError when there is none."""
        if not streams:
            raise DeviceError("no SpaceMouse given; set devices.left, devices.right or both")
        self._caps = {side: _Cap(stream, stick or Stick()) for side, stream in streams.items()}

    def read(self, now_ns: int) -> Jog:
        """Return the present wish of both hands."""
        jog = Jog.rest()
        for side, cap in self._caps.items():
            row = ROWS[side]
            jog.linear[row], jog.angular[row], jog.gripper[row] = cap.read(now_ns)
            jog.enabled[row] = bool(jog.linear[row].any() or jog.angular[row].any() or jog.gripper[row])
        return jog

    def close(self) -> None:
        """Release the devices."""
        for cap in self._caps.values():
            cap.close()


class _Cap:
    """One device: deflections of its own six axes and the buttons."""

    def __init__(self, stream: EventStream, stick: Stick) -> None:
        self._stream, self._stick = stream, stick
        self._deflection = np.zeros(6)
        self._relative_ns = -1
        self._keys: set[int] = set()

    def read(self, now_ns: int) -> tuple[Floats, Floats, float]:
        try:
            events = self._stream.read(now_ns)
        except DeviceError:
            self._let_go()
            raise
        for event in events:
            self._take(event, now_ns)
        if 0 <= self._relative_ns < now_ns - SILENCE_NS:
            self._deflection[:] = 0.0
        right, back, down = (self._stick.shaped(float(value)) for value in self._deflection[:3])
        tilt, roll, spin = (self._stick.shaped(float(value)) for value in self._deflection[3:])
        gripper = float(BTN_OPEN in self._keys) - float(BTN_CLOSE in self._keys)
        return np.array([-back, -right, -down]), np.array([-roll, -tilt, -spin]), gripper

    def close(self) -> None:
        self._stream.close()

    def _take(self, event: InputEvent, now_ns: int) -> None:
        if event.kind == EV_SYN and event.code == SYN_DROPPED:
            self._let_go()
        elif event.kind == EV_KEY:
            (self._keys.add if event.value else self._keys.discard)(event.code)
        elif event.kind in (EV_REL, EV_ABS) and event.code < 6:
            axis = self._stream.axes.get(event.code) if event.kind == EV_ABS else None
            value = axis.share(event.value) if axis else event.value / FULL_SCALE
            self._deflection[event.code] = np.clip(value, -1.0, 1.0)
            if event.kind == EV_REL:
                self._relative_ns = now_ns

    def _let_go(self) -> None:
        self._deflection[:] = 0.0
        self._keys.clear()
