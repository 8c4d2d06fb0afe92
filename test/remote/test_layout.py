# SPDX-License-Identifier: Apache-2.0
"""Pictures on their way into openpi's black squares and out of them."""

import numpy as np
import pytest

from imagewam_ros.core.schema import Observation
from imagewam_ros.remote.layout import find_layout, fitted, unfitted


def picture(height: int, width: int):
    """Bright everywhere, brighter to the right and to the bottom."""
    rows, columns = np.linspace(60, 120, height)[:, None], np.linspace(0, 120, width)
    return np.repeat((rows + columns)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("whole", "inner"),
    [((480, 640), (168, 224)), ((640, 480), (224, 168)), ((480, 848), (126, 224)), ((1, 900), (1, 224))],
)
def test_bars_are_cut_off(whole, inner) -> None:
    square = fitted(picture(*whole), 224)
    found = unfitted(square, whole, 224)
    assert square.shape == (224, 224, 3) and found.shape == (*inner, 3)
    assert found.min() >= 55 and found.sum() == square.sum(), "no bar is left and nothing is lost"


@pytest.mark.parametrize(
    ("shape", "whole", "size"), [((480, 640), (480, 640), 224), ((224, 224), None, 224), ((224, 224), (480, 640), 0)]
)
def test_pictures_without_bars_stay(shape, whole, size) -> None:
    image = picture(*shape)
    assert unfitted(image, whole, size) is image


def test_square_cameras_have_no_bars() -> None:
    assert unfitted(picture(224, 224), (128, 128), 224).shape == (224, 224, 3)


@pytest.mark.parametrize("name", ["aloha", "libero"])
def test_what_is_written_reads_the_same_way(name) -> None:
    layout = find_layout(name)
    cameras = {camera: picture(480, 640) for camera, _ in layout.images}
    message = layout.write(Observation(0, cameras, np.arange(3.0), "lift"))
    found = layout.read(message, 3, dict.fromkeys(cameras, (480, 640)))
    assert {image.shape for image in found.images.values()} == {(168, 224, 3)}
    assert found.positions.tolist() == [0.0, 1.0, 2.0] and found.instruction == "lift"
