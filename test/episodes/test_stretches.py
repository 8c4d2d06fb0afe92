# SPDX-License-Identifier: Apache-2.0
"""What of an episode is learned: unbroken stretches at the policy's rate, judged as a conversion judges them."""

from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import JointState
from imagewam_ros.data.episode import EpisodeWriter, Provenance
from imagewam_ros.data.frames import read_frames
from imagewam_ros.data.stretches import judge, read_lesson

PERIOD_NS = 50_000_000
JOINTS = ("left_waist", "right_waist")


def write(folder: Path, ticks: list[int], period_ns: int = PERIOD_NS, still: int = 0, **about: object) -> Path:
    """An episode with a frame at each of `ticks` (in periods of 50 ms), at rest for the first `still` of them."""
    known = Provenance("pair", "wave", JOINTS, (("head", "head/image"),), period_ns, 1.0, **about)  # type: ignore[arg-type]
    with EpisodeWriter(folder, known) as writer:
        for tick in ticks:
            place = max(0, tick - still) / 10
            writer.image("head", tick * PERIOD_NS, np.full((8, 8, 3), tick, np.uint8))
            writer.joints(JointState(tick * PERIOD_NS, JOINTS, np.full(2, place), np.zeros(2)))
            writer.action(tick * PERIOD_NS, np.full(2, max(0, tick + 1 - still) / 10))
        writer.finish("success")
    return folder


def lengths(lesson) -> list[tuple[int, bool]]:
    return [(rows.stop - rows.start, open_end) for rows, open_end in lesson.stretches]


def test_an_unbroken_episode_is_learned_as_it_was_read(tmp_path) -> None:
    folder = write(tmp_path / "e", list(range(12)))
    lesson, frames = read_lesson(folder), read_frames(folder)
    assert lengths(lesson) == [(12, False)] and lesson.holes == lesson.idle_frames == lesson.short_frames == 0
    assert np.array_equal(lesson.plan.stamps_ns, frames.stamps_ns)
    assert np.array_equal(lesson.plan.actions, frames.actions)


def test_a_stalled_camera_makes_two_demonstrations_the_first_without_an_end(tmp_path) -> None:
    lesson = read_lesson(write(tmp_path / "e", [*range(6), *range(26, 34)]))
    assert lengths(lesson) == [(6, True), (8, False)] and lesson.holes == 1
    assert lesson.plan.positions[6, 0] == 2.6, "the second begins where the camera came back"


def test_what_lies_between_two_holes_is_too_short_to_learn_from(tmp_path) -> None:
    lesson = read_lesson(write(tmp_path / "e", [*range(5), 20, 21, *range(40, 45)]))
    assert lengths(lesson) == [(5, True), (5, False)] and (lesson.holes, lesson.short_frames) == (2, 2)
    assert judge(write(tmp_path / "short", [0, 1, 2])) == "no unbroken stretch of 4 frames to learn from"


def test_a_hole_breaks_a_correction_too(tmp_path) -> None:
    spans = ((2 * PERIOD_NS, 28 * PERIOD_NS),)
    lesson = read_lesson(write(tmp_path / "e", [*range(8), *range(24, 34)], interventions=spans))
    assert lengths(lesson) == [(6, True), (5, True)]
    assert lesson.plan.stamps_ns.tolist() == [tick * PERIOD_NS for tick in (*range(2, 8), *range(24, 29))]


def test_faster_cameras_are_thinned_to_the_policys_rate(tmp_path) -> None:
    lesson = read_lesson(write(tmp_path / "e", list(range(20)), period_ns=2 * PERIOD_NS))
    assert lengths(lesson) == [(10, False)]
    assert np.diff(lesson.plan.stamps_ns).tolist() == [2 * PERIOD_NS] * 9
    said = judge(write(tmp_path / "odd", list(range(20)), period_ns=3 * PERIOD_NS // 2))
    assert isinstance(said, str) and "frames are 50.0 ms apart, the period is 75.0 ms" in said


def test_idle_beginnings_are_cut_where_asked_for(tmp_path) -> None:
    folder = write(tmp_path / "e", list(range(40)), still=20)
    assert lengths(read_lesson(folder)) == [(40, False)]
    lesson = read_lesson(folder, trim_idle=True)
    assert lengths(lesson) == [(40 - lesson.idle_frames, False)] and lesson.idle_frames in (19, 20)
    staying = read_lesson(write(tmp_path / "stay", list(range(20)), still=99), trim_idle=True)
    assert lengths(staying) == [(20, False)], "who shows how to stay shows it as a whole"


def test_a_jumping_clock_is_refused_with_the_reason(tmp_path) -> None:
    folder = tmp_path / "e"
    ticks = [*range(10), *range(3, 10), *range(10, 20)]
    known = Provenance("pair", "wave", JOINTS, (("head", "head/image"),), PERIOD_NS, 1.0)
    with EpisodeWriter(folder, known) as writer:
        for tick in ticks:
            writer.image("head", tick * PERIOD_NS, np.zeros((8, 8, 3), np.uint8))
            writer.joints(JointState(tick * PERIOD_NS, JOINTS, np.full(2, tick / 10), np.zeros(2)))
            writer.action(tick * PERIOD_NS, np.zeros(2))
        writer.finish("success")
    with pytest.raises(EpisodeError, match=r"of 27 stamps of .* are not newer than the one before; did the clock jump"):
        read_lesson(folder)
    assert "did the clock jump" in str(judge(folder))
