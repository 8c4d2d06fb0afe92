# SPDX-License-Identifier: Apache-2.0
"""The loop around a camera: counting, silence, opening again."""

import numpy as np
import pytest

from imagewam_ros.cameras.camera import CameraLoop, Frame, Intrinsics, Profile
from imagewam_ros.core.errors import CameraError, ConfigError

SECOND = 1_000_000_000


class Scripted:
    """A camera that gives what its script says: a stream and a number, None, or an error."""

    def __init__(self, script, openings=(True,)):
        self.script, self.openings, self.closed = list(script), list(openings), 0

    def open(self):
        if not self.openings.pop(0):
            raise CameraError("not there")
        return {"color": Intrinsics(2, 2), "depth": Intrinsics(2, 2)}

    def read(self, timeout_s):
        item = self.script.pop(0)
        if item == "fault":
            raise CameraError("cable")
        return Frame(*item, 0, np.zeros((2, 2, 3), np.uint8)) if item else None

    def close(self):
        self.closed += 1


def test_gaps_are_counted_per_stream():
    loop = CameraLoop(Scripted([("color", 3), ("depth", 3), ("color", 4), ("depth", 9), ("color", 6)]), 1.0, 1.0)
    loop.open(0)
    for _ in range(5):
        loop.step(0, 0.1)
    assert (loop.status.frames, loop.status.dropped) == (5, 6)


def test_one_silent_stream_of_two_is_noticed():
    loop = CameraLoop(Scripted([("color", 1), ("color", 2)]), 1.0, 1.0)
    loop.open(0)
    loop.step(SECOND // 2, 0.1)
    loop.step(2 * SECOND, 0.1)
    assert loop.status.complaint == "no depth frame for 1.0 s; is the cable in?"
    assert not loop.status.connected


def test_a_fault_closes_and_the_retry_waits():
    camera = Scripted(["fault", ("color", 1)], [True, False, True])
    loop = CameraLoop(camera, 1.0, 2.0)
    loop.open(0)
    loop.step(0, 0.1)
    assert (loop.status.complaint, camera.closed) == ("cable", 1)
    loop.step(SECOND, 0.1)
    assert len(camera.openings) == 2
    loop.step(2 * SECOND, 0.1)
    assert loop.status.complaint == "not there"
    loop.step(4 * SECOND, 0.1)
    assert loop.status.connected
    assert loop.status.reconnects == 1


def test_the_first_opening_raises():
    with pytest.raises(CameraError, match="not there"):
        CameraLoop(Scripted([], [False]), 1.0, 1.0).open(0)


@pytest.mark.parametrize("text", ["640x480x30", "640,480,30"])
def test_profiles_have_two_spellings(text):
    assert Profile.parse(text) == (640, 480, 30)
    assert str(Profile.parse(text)) == "640x480x30"


@pytest.mark.parametrize("text", ["", "640x480", "axbxc", "640x480x-1", "0,0,0"])
def test_a_bad_profile_says_how_to_write_it(text):
    with pytest.raises(ConfigError, match=r"is not WIDTHxHEIGHTxRATE; write for example 640x480x30"):
        Profile.parse(text)
