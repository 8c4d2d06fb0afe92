# SPDX-License-Identifier: Apache-2.0
"""The hand-held devices by name. A new device is one class and one line in `DEVICES`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagewam_ros.core.errors import DeviceError, unknown_name
from imagewam_ros.teleop.events import find_devices, open_stream
from imagewam_ros.teleop.gamepad import Gamepad
from imagewam_ros.teleop.jog import JogDevice
from imagewam_ros.teleop.keyboard import Keyboard
from imagewam_ros.teleop.spacemouse import SpaceMouse


@dataclass(frozen=True)
class DeviceConfig:
    """Where the devices are; an empty path looks in /dev/input/by-id. A plain file is a recording.

    left and right: one SpaceMouse each; with both empty the only one found is the left arm's.
    """

    gamepad: str = ""
    left: str = ""
    right: str = ""
    terminal: str = "/dev/tty"


def open_device(name: str, config: DeviceConfig) -> JogDevice:
    """Open the device called `name`. Raises DeviceError with the nearest match or the remedy."""
    if name not in DEVICES:
        raise DeviceError(unknown_name("device", name, DEVICES))
    return DEVICES[name](config)


def _gamepad(config: DeviceConfig) -> JogDevice:
    return Gamepad(open_stream(config.gamepad or str(_only("event-joystick", "gamepad"))))


def _keyboard(config: DeviceConfig) -> JogDevice:
    return Keyboard(config.terminal)


def _spacemouse(config: DeviceConfig) -> JogDevice:
    paths = {side: path for side, path in (("left", config.left), ("right", config.right)) if path}
    paths = paths or {"left": str(_only("3Dconnexion", "SpaceMouse"))}
    return SpaceMouse({side: open_stream(path) for side, path in paths.items()})


def _only(wanted: str, title: str, folder: Path = Path("/dev/input/by-id")) -> Path:
    found = list(find_devices(wanted, folder))
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found) or "none"
        raise DeviceError(f"expected one {title} in {folder}, found {listed}; give its path")
    return found[0]


DEVICES: dict[str, Callable[[DeviceConfig], JogDevice]] = {
    "gamepad": _gamepad,
    "keyboard": _keyboard,
    "spacemouse": _spacemouse,
}
