# SPDX-License-Identifier: Apache-2.0
"""Where an observation's parts lie in the map that a policy server expects, and back.

Source: openpi's example inputs: `aloha_policy.py` (state, images/cam_high..., channels first) and `libero_policy.py`
(flat keys, channels last), both with square images of 224 that keep their aspect ratio on black.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pictures

from imagewam_ros.core.errors import ConfigError, RemoteError, unknown_name
from imagewam_ros.core.schema import Floats, Image, Observation

SIZE = 224
Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """images pairs our cameras with paths of keys; size 0 leaves images as they are."""

    images: tuple[tuple[str, tuple[str, ...]], ...]
    state: tuple[str, ...]
    channels_first: bool = False
    size: int = SIZE
    prompt: str = "prompt"

    def write(self, observation: Observation) -> dict[str, Any]:
        """Return the map. Raises ConfigError for a camera that the observation lacks."""
        message: dict[str, Any] = {self.prompt: observation.instruction}
        _put(message, self.state, observation.positions.astype(np.float32))
        for camera, path in self.images:
            if camera not in observation.images:
                raise ConfigError(f"the layout needs {unknown_name('camera', camera, observation.images)}")
            picture = fitted(observation.images[camera], self.size)
            _put(message, path, np.ascontiguousarray(picture.transpose(2, 0, 1)) if self.channels_first else picture)
        return message

    def read(self, message: Mapping[str, Any], joints: int, sizes: Mapping[str, Size] | None = None) -> Observation:
        """Return the observation of a map, images in either order of axes and without the bars of `write`.

        sizes gives height and width of the cameras as they are; the squares of others stay. Raises RemoteError
        saying what is amiss.
        """
        known = sizes or {}
        images = {
            camera: unfitted(_picture(_get(message, path), path), known.get(camera), self.size)
            for camera, path in self.images
        }
        state, text = _vector(_get(message, self.state), self.state), message.get(self.prompt)
        if state.shape != (joints,):
            raise RemoteError(f"{'/'.join(self.state)} has shape {list(state.shape)}, expected [{joints}]")
        if not isinstance(text, str) or not text:
            raise RemoteError(f"{self.prompt!r} must be the instruction in words, found {text!r}")
        return Observation(0, images, state, text)


def _aloha(camera: str) -> tuple[str, ...]:
    return ("images", camera)


LAYOUTS = {
    "aloha": Layout(
        (
            ("head", _aloha("cam_high")),
            ("left_wrist", _aloha("cam_left_wrist")),
            ("right_wrist", _aloha("cam_right_wrist")),
        ),
        ("state",),
        channels_first=True,
    ),
    "libero": Layout(
        (("head", ("observation/image",)), ("wrist", ("observation/wrist_image",))), ("observation/state",)
    ),
}


def find_layout(name: str) -> Layout:
    """Return the layout called `name`. Raises ConfigError with the nearest match."""
    if name not in LAYOUTS:
        raise ConfigError(unknown_name("layout", name, LAYOUTS))
    return LAYOUTS[name]


def fitted(image: Image, size: int) -> Image:
    """Scale [H, W, 3] into a black square of `size` pixels, its aspect kept; size 0 leaves it."""
    height, width = image.shape[:2]
    if not size or (height, width) == (size, size):
        return image
    rows, columns = _inner((height, width), size)
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    square = np.zeros((size, size, 3), np.uint8)
    square[rows, columns] = np.asarray(Pictures.fromarray(image).resize(shape, Pictures.Resampling.BILINEAR))
    return square


def unfitted(image: Image, whole: Size | None, size: int) -> Image:
    """Cut the bars off a square of `size` pixels that shows a picture of `whole` (height, width).

    A picture of another size, or of a camera that nothing is known of, is returned as it is.
    """
    if whole is None or image.shape[:2] != (size, size):
        return image
    return np.ascontiguousarray(image[_inner(whole, size)])


def _inner(whole: Size, size: int) -> tuple[slice, slice]:
    """Rows and columns of a square that a picture of `whole` (height, width) fills, rounded down as openpi does."""
    height, width = (max(side * size // max(whole), 1) for side in whole)
    top, left = (size - height) // 2, (size - width) // 2
    return slice(top, top + height), slice(left, left + width)


def _put(message: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        message = message.setdefault(key, {})
    message[path[-1]] = value


def _get(message: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = message
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            has = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise RemoteError(f"the observation has no {'/'.join(path)}; found {has}")
        found = found[key]
    return found


def _vector(value: Any, path: tuple[str, ...]) -> Floats:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RemoteError(f"{'/'.join(path)} is no vector of numbers: {error}") from error


def _picture(value: Any, path: tuple[str, ...]) -> Image:
    try:
        picture = np.asarray(value)
    except ValueError as error:
        raise RemoteError(f"{'/'.join(path)} is no array: {error}") from error
    if picture.ndim == 3 and picture.shape[0] == 3 and picture.shape[2] != 3:
        picture = picture.transpose(1, 2, 0)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise RemoteError(f"{'/'.join(path)} is {picture.dtype} {list(picture.shape)}, expected uint8 [H, W, 3]")
    return np.ascontiguousarray(picture)
