# SPDX-License-Identifier: Apache-2.0
"""Linux input events: from a device by python-evdev, or from a recording that evemu-record wrote.

`evemu-record /dev/input/eventN > stick.evemu` records what a user's own device sends; such a file
takes the place of the device, in a test or to see what went wrong.
Source: linux/input-event-codes.h; the evemu format 1.3 (N: name, A: axis, E: event).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from imagewam_ros.core.errors import DeviceError

EV_SYN, EV_KEY, EV_REL, EV_ABS = 0, 1, 2, 3
SYN_REPORT, SYN_DROPPED = 0, 3
REOPEN_NS = 1_000_000_000
INSTALL = "pip install evdev"


class InputEvent(NamedTuple):
    """One event; type, code and value as the kernel gives them."""

    kind: int
    code: int
    value: int


class Axis(NamedTuple):
    """Range of an absolute axis."""

    minimum: int
    maximum: int

    def share(self, value: int) -> float:
        """Return the place of `value` between minimum (-1) and maximum (1)."""
        return 2.0 * (value - self.minimum) / (self.maximum - self.minimum) - 1.0


class EventStream(Protocol):
    """A source of input events."""

    @property
    def axes(self) -> Mapping[int, Axis]:
        """Absolute axes by code."""

    def read(self, now_ns: int) -> Sequence[InputEvent]:
        """Return what came since the last call. Raises DeviceError while the device is lost."""

    def close(self) -> None:
        """Release the device."""


@dataclass(frozen=True)
class Recording:
    """A parsed evemu file: axes by code and events with their times in ns."""

    name: str
    axes: Mapping[int, Axis]
    times_ns: tuple[int, ...]
    events: tuple[InputEvent, ...]


class RecordedStream:
    """Plays a recording; its first event is due at the first read."""

    def __init__(self, recording: Recording) -> None:
        self._recording, self._next = recording, 0
        self._start_ns: int | None = None

    @property
    def axes(self) -> Mapping[int, Axis]:
        """Absolute axes by code."""
        return self._recording.axes

    def read(self, now_ns: int) -> Sequence[InputEvent]:
        """Return the events that are due."""
        times, first = self._recording.times_ns, self._next
        if self._start_ns is None:
            self._start_ns = now_ns - times[0]
        while self._next < len(times) and times[self._next] <= now_ns - self._start_ns:
            self._next += 1
        return self._recording.events[first : self._next]

    def close(self) -> None:
        """Nothing to release."""


class EvdevStream:
    """A device under /dev/input. Lost, it is looked for again at the same path once a second."""

    def __init__(self, path: Path) -> None:
        """Open the device. Raises DeviceError with the remedy."""
        self._path, self._device, self._retry_ns = path, _open(path), 0
        self._axes = _axes(self._device)

    @property
    def axes(self) -> Mapping[int, Axis]:
        """Absolute axes by code."""
        return self._axes

    def read(self, now_ns: int) -> Sequence[InputEvent]:
        """Return what the kernel has buffered."""
        if self._device is None:
            self._reopen(now_ns)
        try:
            return [InputEvent(event.type, event.code, event.value) for event in self._device.read()]
        except BlockingIOError:
            return ()
        except OSError as error:
            self.close()
            raise DeviceError(f"{self._path} is gone ({error.strerror}); plug it in again") from error

    def close(self) -> None:
        """Release the device."""
        if self._device is not None:
            self._device.close()
        self._device = None

    def _reopen(self, now_ns: int) -> None:
        if now_ns < self._retry_ns:
            raise DeviceError(f"{self._path} is gone; plug it in again")
        self._retry_ns = now_ns + REOPEN_NS
        self._device = _open(self._path)


def open_stream(path: str) -> EventStream:
    """Open a device, or a recording when `path` is a plain file. Raises DeviceError."""
    place = Path(path)
    if place.is_file():
        return RecordedStream(read_recording(place))
    return EvdevStream(place)


def read_recording(path: Path) -> Recording:
    """Parse what evemu-record writes. Raises DeviceError naming the line."""
    name, axes, times_ns, events = path.stem, {}, [], []
    for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1):
        try:
            if line.startswith("N: "):
                name = line[3:]
            elif line.startswith("A: "):
                code, minimum, maximum = line[3:].split()[:3]
                axes[int(code, 16)] = Axis(int(minimum), int(maximum))
            elif line.startswith("E: "):
                time, kind, code, value = line[3:].split()[:4]
                seconds, _, micros = time.partition(".")
                times_ns.append(int(seconds) * 1_000_000_000 + int(micros.ljust(6, "0")[:6]) * 1000)
                events.append(InputEvent(int(kind, 16), int(code, 16), int(value)))
        except ValueError as error:
            raise DeviceError(f"{path}:{number}: not a line of evemu-record: {line!r}") from error
    if not events:
        raise DeviceError(f"{path} holds no events; record with evemu-record /dev/input/eventN > {path.name}")
    return Recording(name, axes, tuple(times_ns), tuple(events))


def find_devices(wanted: str, folder: Path = Path("/dev/input/by-id")) -> Iterator[Path]:
    """Yield devices whose stable name holds `wanted`, for example `3Dconnexion` or `event-joystick`."""
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if wanted in path.name and "event" in path.name)


def _open(path: Path) -> Any:
    try:
        import evdev
    except ImportError as error:
        raise DeviceError(f"python-evdev cannot be imported ({error}); {INSTALL}") from error
    if not path.exists():
        known = ", ".join(str(p) for p in sorted(Path("/dev/input/by-id").glob("*event*"))) or "none"
        raise DeviceError(f"no input device at {path}; devices here: {known}")
    if not os.access(path, os.R_OK):
        raise DeviceError(f"{path} may not be read by this user; run sudo usermod -aG input $USER and log in again")
    try:
        return evdev.InputDevice(str(path))
    except OSError as error:
        raise DeviceError(f"{path} is not an input device ({error.strerror})") from error


def _axes(device: Any) -> dict[int, Axis]:
    return {
        code: Axis(info.min, info.max) for code, info in device.capabilities().get(EV_ABS, ()) if info.max > info.min
    }
