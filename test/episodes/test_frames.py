# SPDX-License-Identifier: Apache-2.0
"""Frames of an episode: paired by the live rule, actions beside them."""

from typing import Any

import numpy as np
import pytest

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import JointState
from imagewam_ros.core.sync import SyncConfig, Synchroniser
from imagewam_ros.data.episode import EpisodeReader
from imagewam_ros.data.frames import read_frames


def test_frames_hold_what_was_recorded(rig: Any) -> None:
    frames = read_frames(rig.record(frames=4))
    assert len(frames) == 4 and frames.images["head"].shape == (4, 8, 12, 3)
    assert frames.positions[:, 0].tolist() == [0, 1, 2, 3]
    assert frames.actions[:, 0].tolist() == [1, 2, 3, 4]


def test_frames_equal_what_the_live_path_serves(rig: Any) -> None:
    folder = rig.record(frames=6)
    live = Synchroniser(dict(rig.provenance().cameras), "joint_states", SyncConfig())
    served = {}
    for sample in EpisodeReader(folder).samples({"head", "left_wrist", "joints"}):
        if isinstance(sample.value, JointState):
            live.add_joints(sample.stamp_ns, sample.value.position)
        else:
            live.add_image(sample.stream, sample.stamp_ns, sample.value)
        frame = live.newest(max(served, default=-1))
        if frame is not None:
            served[frame.stamp_ns] = frame.positions
    frames = read_frames(folder)
    assert frames.stamps_ns.tolist() == list(served)
    assert np.array_equal(frames.positions, np.stack(list(served.values())))


def test_joint_order_is_the_provenances(rig: Any) -> None:
    with rig.writer("e") as writer:
        for i in range(2):
            for camera in ("head", "left_wrist"):
                writer.image(camera, i * rig.period_ns, np.zeros((8, 12, 3), np.uint8))
            writer.joints(JointState(i * rig.period_ns, rig.joint_names[::-1], np.array([2.0, 1.0]), np.zeros(2)))
            writer.action(i * rig.period_ns, np.array([3.0, 4.0]))
        writer.finish("success")
    frames = read_frames(rig.root / "e")
    assert frames.positions.tolist() == [[1, 2], [1, 2]]
    assert frames.actions.tolist() == [[3, 4], [3, 4]]


def test_missing_streams_and_joints_are_named(rig: Any) -> None:
    with rig.writer("silent") as writer:
        writer.action(0, np.zeros(2))
        writer.finish("success")
    with pytest.raises(
        EpisodeError,
        match=r"holds no samples of head \(head_camera/image\), left_wrist .*, joints .*; found operator",
    ):
        read_frames(rig.root / "silent")
    with rig.writer("short") as writer:
        for camera in ("head", "left_wrist"):
            writer.image(camera, 0, np.zeros((8, 12, 3), np.uint8))
        writer.joints(JointState(0, rig.joint_names[:1], np.zeros(1), np.zeros(1)))
        writer.action(0, np.zeros(2))
        writer.finish("success")
    with pytest.raises(EpisodeError, match="joint_states lacks right_waist; found left_waist"):
        read_frames(rig.root / "short")


def test_joints_may_come_from_several_drivers(rig: Any) -> None:
    """Each arm's driver sends its own joints; a frame's state is as old as its oldest joint."""
    with rig.writer("e") as writer:
        for i in range(4):
            for camera in ("head", "left_wrist"):
                writer.image(camera, i * rig.period_ns, np.zeros((8, 12, 3), np.uint8))
            for place, name in enumerate(rig.joint_names):
                stamp = i * rig.period_ns + place * 1_000_000
                writer.joints(JointState(stamp, (name,), np.array([i + place / 10]), np.zeros(1)))
            writer.action(i * rig.period_ns, np.zeros(2))
        writer.finish("success")
    assert read_frames(rig.root / "e").positions.tolist() == [[0, 0.1], [1, 1.1], [2, 2.1], [3, 3.1]]


def test_actions_of_another_time_make_no_frame(rig: Any) -> None:
    with rig.writer("e") as writer:
        for camera in ("head", "left_wrist"):
            writer.image(camera, 0, np.zeros((8, 12, 3), np.uint8))
        writer.joints(JointState(0, rig.joint_names, np.zeros(2), np.zeros(2)))
        writer.action(10 * rig.period_ns, np.zeros(2))
        writer.finish("success")
    with pytest.raises(EpisodeError, match="has no frame with all cameras, joints and an action"):
        read_frames(rig.root / "e")


def test_another_rate_is_refused(rig: Any) -> None:
    with rig.writer("e", period_ns=2 * rig.period_ns) as writer:
        rig.write(writer, 4)
        writer.finish("success")
    with pytest.raises(EpisodeError, match=r"frames are 50\.0 ms apart, the policy's period is 100\.0 ms"):
        read_frames(rig.root / "e")
