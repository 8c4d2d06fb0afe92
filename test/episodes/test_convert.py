# SPDX-License-Identifier: Apache-2.0
"""Episodes to LeRobot data sets and back; every trap is named in the report and nothing half-written is left."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_recordings import CAMERAS, JOINTS, PERIOD_NS, START_NS, picture, record, run

from imagewam_ros import cli, convert
from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.core.schema import JointState
from imagewam_ros.core.stats import Statistics
from imagewam_ros.data.episode import EpisodeReader, EpisodeWriter, Provenance, read_provenance
from imagewam_ros.data.frames import read_frames
from imagewam_ros.data.lerobot_convert import convert as convert_all
from imagewam_ros.data.lerobot_import import import_dataset
from imagewam_ros.data.lerobot_judge import ConvertConfig, frames_per_second
from imagewam_ros.data.lerobot_stats import authors_statistics, histogram, image_statistics, windows
from imagewam_ros.data.lerobot_video import VideoWriter, join, read_video
from imagewam_ros.data.report import nonidle_ranges, segments, stream_report


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_there_and_back(tmp_path: Path, version: str) -> None:
    """What a data set gives back is what was recorded: stamps and joints exactly, images as the codec allows."""
    for number in range(3):
        record(tmp_path / "in", f"episode_{number}", frames=25 + number, instruction=f"task {number % 2}")
    reports = run(tmp_path / "in", tmp_path / "set", version=version)
    assert [report.frames for report in reports] == [25, 26, 27] and all(report.accepted for report in reports)
    found = list(import_dataset(tmp_path / "set", tmp_path / "back", None))
    assert [frames for _, frames in found] == [25, 26, 27]
    for number, (folder, _) in enumerate(found):
        mine, theirs = read_frames(folder), read_frames(tmp_path / "in" / f"episode_{number}")
        assert mine.provenance.instruction == f"task {number % 2}" and mine.provenance.joint_names == JOINTS
        assert mine.provenance.first_row_offset_periods == 1.0 and mine.provenance.robot == "pair"
        np.testing.assert_array_equal(mine.stamps_ns, theirs.stamps_ns)
        np.testing.assert_allclose(mine.positions, theirs.positions, atol=1e-7)
        np.testing.assert_allclose(mine.actions, theirs.actions, atol=1e-7)
        for camera, images in mine.images.items():
            difference = np.abs(images.astype(int) - theirs.images[camera].astype(int))
            assert difference.mean() < 2.5, camera


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_corrections_stay_marked(tmp_path: Path, version: str) -> None:
    """Whoever trains on the data set, we or the authors' code, learns from the corrected frames alone."""
    at = [START_NS + frame * PERIOD_NS for frame in range(30)]
    spans = ((at[4] - 1, at[15]), (at[20], at[27] + 1))
    record(tmp_path / "in", "episode_0", interventions=spans)
    record(tmp_path / "in", "episode_1")
    (report, _) = run(tmp_path / "in", tmp_path / "set", version=version, idle_s=0.4)
    ranges = json.loads((tmp_path / "set" / "nonidle_ranges.json").read_text())["episodes"]
    assert ranges == {"0": [[9, 16], [20, 28]], "1": [[9, 30]]} and report.idle_frames == 9
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    assert info["features"]["intervention"] == {"dtype": "bool", "shape": [1], "names": None}
    found = list(import_dataset(tmp_path / "set", tmp_path / "back", None))
    back = [read_provenance(folder) for folder, _ in found]
    assert [about.interventions for about in back] == [((at[4], at[15]), (at[20], at[27])), ()]


def test_without_corrections_no_column_says_so(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0")
    run(tmp_path / "in", tmp_path / "set")
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    assert "intervention" not in info["features"]


def test_files_of_bounded_size_hold_several_episodes(tmp_path: Path) -> None:
    parts = []
    for number, frames in enumerate((5, 8, 3)):
        with VideoWriter(tmp_path / f"{number}.mp4", 20, 18) as writer:
            for i in range(frames):
                writer.add(picture("head", 20 * number + i % 20))
        parts.append((tmp_path / f"{number}.mp4", frames))
    join(parts, tmp_path / "all.mp4", 20)
    middle = list(read_video(tmp_path / "all.mp4", 5 / 20, 8, 20))
    levels = [float(image[..., 2].mean()) for image in middle]
    np.testing.assert_allclose(levels, [picture("head", 20 + i)[0, 0, 2] for i in range(8)], atol=2)
    with pytest.raises(EpisodeError, match=r"all\.mp4 holds 3 of 9 frames from 0\.650 s on"):
        list(read_video(tmp_path / "all.mp4", 13 / 20, 9, 20))
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    with pytest.raises(EpisodeError, match=r"torn\.mp4 cannot be read"):
        list(read_video(tmp_path / "torn.mp4", 0.0, 1, 20))


def test_odd_and_changing_images_are_no_video(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 20, 18) as writer, pytest.raises(EpisodeError, match="of 63x48 cannot become"):
        writer.add(picture("head", 0)[:, :63])
    with VideoWriter(tmp_path / "b.mp4", 20, 18) as writer:
        writer.add(picture("head", 0))
        with pytest.raises(EpisodeError, match="images change from 64x48 to 32x48 within an episode"):
            writer.add(picture("head", 0)[:, :32])


def test_layout_of_v30(tmp_path: Path) -> None:
    for number in range(2):
        record(tmp_path / "in", f"episode_{number}")
    run(tmp_path / "in", tmp_path / "set")
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"], info["total_tasks"]) == ("v3.0", 20, 60, 1)
    assert info["features"]["observation.images.head"]["shape"] == [48, 64, 3]
    table = pq.read_table(tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet")
    assert table["index"].to_pylist() == list(range(60))
    np.testing.assert_allclose(table["timestamp"].to_numpy(), np.tile(np.arange(30) / 20, 2), atol=1e-6)
    episodes = pq.read_table(tmp_path / "set" / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    key = "videos/observation.images.head"
    assert [(row[f"{key}/from_timestamp"], row[f"{key}/to_timestamp"]) for row in episodes] == [(0.0, 1.5), (1.5, 3.0)]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 30), (30, 60)]
    stats = json.loads((tmp_path / "set" / "meta" / "stats.json").read_text())
    assert np.array(stats["observation.images.head"]["mean"]).shape == (3, 1, 1)
    assert stats["action"]["max"][0] == pytest.approx(0.2)


def test_extras_for_training(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0")
    run(tmp_path / "in", tmp_path / "set", horizon=4, idle_s=0.4)
    meta = tmp_path / "set" / "meta"
    contract = json.loads((meta / "imagewam_contract.json").read_text())
    assert contract["first_row_offset_periods"] == 1.0 and contract["period_ns"] == PERIOD_NS
    assert contract["cameras"] == ["head", "left_wrist"]
    own = json.loads((meta / "imagewam_stats.json").read_text())
    assert Statistics.from_dict(own["action"]).maximum[0] == pytest.approx(0.2)
    theirs = json.loads((tmp_path / "set" / "dataset_stats.json").read_text())
    assert np.array(theirs["action"]["default"]["stepwise_mean"]).shape == (4, 2)
    assert (theirs["num_episodes"], theirs["num_transition"]) == (1, 30)
    ranges = json.loads((tmp_path / "set" / "nonidle_ranges.json").read_text())
    assert ranges == {"format": "imagewam_nonidle_ranges_v1", "episodes": {"0": [[9, 30]]}}


def test_what_is_rejected_and_why(tmp_path: Path) -> None:
    root = tmp_path / "in"
    record(root, "a_good")
    record(root, "b_failed", label="failure")
    record(root, "c_unlabelled", label="")
    record(root, "d_holes", skip=(12, 13))
    record(root, "e_short", frames=8)
    record(root, "f_other_robot", robot="trio")
    record(root, "g_silent", instruction="")
    record(root, "h_mixed", skip=tuple(range(1, 30, 2)))
    with EpisodeWriter(root / "j_clock", Provenance("pair", "x", JOINTS, CAMERAS, PERIOD_NS, 1.0)) as writer:
        for i in range(40):
            stamp = START_NS + i % 25 * PERIOD_NS
            for camera, _ in CAMERAS:
                writer.image(camera, stamp, picture(camera, i))
            writer.joints(JointState(stamp, JOINTS, np.zeros(2), np.zeros(2)))
            writer.action(stamp, np.zeros(2))
        writer.finish("success")
    damaged = record(root, "i_damaged")
    content = bytearray((damaged / "i_damaged_0.mcap").read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    (damaged / "i_damaged_0.mcap").write_bytes(content)
    (record(root, "k_torn") / "metadata.yaml").unlink()
    reports = {report.name: report.reason for report in run(root, tmp_path / "set")}
    expected = {
        "a_good": "^$",
        "b_failed": "labelled failure, taken are success",
        "c_unlabelled": "unlabelled: call the recorder's success or failure service",
        "d_holes": "1 holes between frames, the longest of 150 ms",
        "e_short": "shorter than 1 s: 8 frames in 1 stretches",
        "f_other_robot": "robot is trio, in the first episode pair",
        "g_silent": "no instruction",
        "h_mixed": r"frames are 100\.0 ms apart, the period is 50\.0 ms: mixed rates\?",
        "i_damaged": "i_damaged is damaged: .* leave it out",
        "j_clock": r"15 of 40 stamps of head_camera/color/image_raw are not newer .* did the clock jump",
        "k_torn": "cut off: `imagewam record --recover .*k_torn` may save it",
    }
    assert list(reports) == list(expected)
    for name, text in expected.items():
        assert re.search(text, reports[name]), (name, reports[name])
    report = json.loads((tmp_path / "set" / "meta" / "imagewam_report.json").read_text())
    assert (report["episodes"], report["accepted"], report["frames"]) == (11, 1, 30)
    assert report["details"][0]["streams"]["joints"]["rate_hz"] == pytest.approx(100, rel=0.01)


def by_drivers(root: Path, rates_hz: dict[tuple[str, ...], int], seconds: int = 2) -> Path:
    """An episode whose joints come on one topic in messages of several drivers, each at its own rate.

    Where rates agree stamps are equal; joint i moves by i + 1 rad/s.
    """
    about = Provenance("pair", "x", JOINTS, CAMERAS, PERIOD_NS, 1.0)
    samples = [(round(i * 1e9 / hz), names) for names, hz in rates_hz.items() for i in range(seconds * hz + 1)]
    with EpisodeWriter(root / "episode_0", about) as writer:
        for stamp, names in sorted(samples, key=lambda sample: sample[0]):
            moved = np.array([JOINTS.index(name) + 1 if name in JOINTS else 0.0 for name in names]) * stamp / 1e9
            writer.joints(JointState(START_NS + stamp, names, moved, np.zeros(len(names))))
        for i in range(20 * seconds):
            for camera, _ in CAMERAS:
                writer.image(camera, START_NS + i * PERIOD_NS, picture(camera, i))
            writer.action(START_NS + i * PERIOD_NS, np.zeros(2))
        writer.finish("success")
    return root


@pytest.mark.parametrize(
    "rates_hz",
    [
        {JOINTS[:1]: 200, JOINTS[1:]: 200},
        {JOINTS[:1]: 200, JOINTS[1:]: 30},
        {JOINTS: 200, ("torso_lift", "torso_turn"): 50},
        {JOINTS[:1]: 200, JOINTS[1:]: 200, JOINTS: 10},
    ],
    ids=["two broadcasters", "slow gripper", "torso on the same topic", "one driver repeats the others"],
)
def test_joints_may_come_in_several_messages(tmp_path: Path, rates_hz: dict[tuple[str, ...], int]) -> None:
    (report,) = run(by_drivers(tmp_path / "in", rates_hz), tmp_path / "set")
    assert report.accepted, report.reason
    assert report.late_messages == {} and report.frames >= 38
    (folder, _), *_ = import_dataset(tmp_path / "set", tmp_path / "back", None)
    frames = read_frames(folder)
    seconds = (frames.stamps_ns - START_NS) / 1e9
    np.testing.assert_allclose(frames.positions, np.stack([seconds, 2 * seconds], axis=1), atol=2 / 200 + 1e-6)


def test_a_driver_that_repeats_itself_is_late(tmp_path: Path) -> None:
    """Each driver is judged by its own messages: the left one sends every third stamp twice."""
    root = by_drivers(tmp_path / "in", {JOINTS[:1]: 100, JOINTS[1:]: 100})
    about = read_provenance(root / "episode_0")
    samples = list(EpisodeReader(root / "episode_0").samples())
    with EpisodeWriter(root / "episode_1", about) as writer:
        repeated = 0
        for stream, stamp_ns, value in samples:
            if stream == "joints":
                writer.joints(value)
                if value.joint_names == JOINTS[:1] and stamp_ns // 10**7 % 3 == 0:
                    writer.joints(value)
                    repeated += 1
            elif stream == "action":
                writer.action(stamp_ns, value.position)
            else:
                writer.image(stream, stamp_ns, value)
        writer.finish("success")
    good, late = run(root, tmp_path / "set")
    assert good.accepted and re.match(f"{repeated} of {402 + repeated} stamps of joint_states are not", late.reason)


def test_faster_cameras_give_every_nth_frame(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0", frames=60, skip=(31,), period_ns=2 * PERIOD_NS)
    (report,) = run(tmp_path / "in", tmp_path / "set", split_holes=True)
    table = pq.read_table(tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet")
    frames = [(stamp - START_NS) // PERIOD_NS for stamp in table["observation.stamp_ns"].to_pylist()]
    assert frames == [*range(0, 60, 2)] and report.frames == 30
    record(tmp_path / "odd", "episode_0", period_ns=PERIOD_NS * 3 // 2)
    with pytest.raises(EpisodeError, match=r"13\.333 frames per second"):
        run(tmp_path / "odd", tmp_path / "odd_set")
    record(tmp_path / "thirty", "episode_0", period_ns=33_333_333)
    with pytest.raises(EpisodeError, match="every episode was rejected"):
        run(tmp_path / "thirty", tmp_path / "thirty_set")


def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    for number in range(2):
        record(tmp_path / "in", f"episode_{number}")
    reports = list(convert_all(tmp_path / "in", tmp_path / "two", ConvertConfig(), workers=2))
    assert reports == run(tmp_path / "in", tmp_path / "one")
    for path in ("data/chunk-000/file-000.parquet", "meta/stats.json", "dataset_stats.json"):
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_holes_can_be_split(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0", frames=60, skip=(22, 23, 58))
    reports = run(tmp_path / "in", tmp_path / "set", split_holes=True)
    assert [(report.name, report.frames) for report in reports] == [
        ("episode_0_part_0", 22),
        ("episode_0_part_1", 34),
    ]
    assert reports[0].holes == 2


def test_idle_start_is_trimmed(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0", frames=40)
    (report,) = run(tmp_path / "in", tmp_path / "set", trim_idle=True, idle_s=0.4)
    assert (report.frames, report.trimmed_frames, report.idle_frames) == (31, 9, 0)


def test_latency_moves_a_stream(tmp_path: Path) -> None:
    """A camera whose stamps are 20 ms late shows the joints of 20 ms before its stamps."""
    record(tmp_path / "in", "episode_0")
    cameras = tuple((name, 0.02) for name, _ in CAMERAS)
    run(tmp_path / "in", tmp_path / "set", latency_s=cameras)
    run(tmp_path / "in", tmp_path / "plain")
    moved, plain = (
        pq.read_table(tmp_path / name / "data" / "chunk-000" / "file-000.parquet") for name in ("set", "plain")
    )
    assert moved["observation.stamp_ns"][5].as_py() == START_NS + 6 * PERIOD_NS - 20_000_000
    states = {name: np.stack(table["observation.state"].to_numpy()) for name, table in (("m", moved), ("p", plain))}
    np.testing.assert_allclose(states["m"][20], states["p"][21] - [0.004, -0.004], atol=1e-6)
    with pytest.raises(ConfigError, match="latency of rear: streams are head, left_wrist, joints"):
        run(tmp_path / "in", tmp_path / "x", latency_s=(("rear", 0.1),))


def test_a_stopped_conversion_is_resumed(tmp_path: Path) -> None:
    for number in range(3):
        record(tmp_path / "in", f"episode_{number}")
    unfinished = convert_all(tmp_path / "in", tmp_path / "set", ConvertConfig(), workers=1)
    next(unfinished)
    unfinished.close()
    staged = tmp_path / "set.part" / "episodes" / "episode_0" / "head.mp4"
    written = staged.stat().st_mtime_ns
    assert not (tmp_path / "set").exists()
    with pytest.raises(EpisodeError, match=r"set\.part was begun with other options"):
        run(tmp_path / "in", tmp_path / "set", crf=30)
    again = convert_all(tmp_path / "in", tmp_path / "set", ConvertConfig(), workers=1)
    next(again)
    assert staged.stat().st_mtime_ns == written
    assert len(list(again)) == 2 and (tmp_path / "set" / "meta" / "info.json").exists()
    assert not (tmp_path / "set.part").exists()
    with pytest.raises(EpisodeError, match="set exists; choose another folder or remove it first"):
        run(tmp_path / "in", tmp_path / "set")


def test_nothing_to_convert_is_said(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0", label="failure")
    with pytest.raises(EpisodeError, match="none of 1 episodes in .* is labelled success; label them"):
        run(tmp_path / "in", tmp_path / "set")
    record(tmp_path / "short", "episode_0", frames=5)
    with pytest.raises(EpisodeError, match="every episode was rejected; the report says why"):
        run(tmp_path / "short", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_periods_that_are_no_frame_rate() -> None:
    assert frames_per_second(33_333_333) == 30
    with pytest.raises(EpisodeError, match=r"a period of 70000000 ns is 14\.286 frames per second"):
        frames_per_second(70_000_000)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": ("sucess",)}, "labels are some of success, failure, found sucess"),
        ({"crf": 60}, "crf is 0 to 51"),
    ],
)
def test_options_are_checked(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ConvertConfig(**change)


def test_a_foreign_data_set_must_say_when_actions_are_due(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0")
    run(tmp_path / "in", tmp_path / "set")
    with pytest.raises(EpisodeError, match=r"says first_row_offset_periods 1, asked for was 0"):
        list(import_dataset(tmp_path / "set", tmp_path / "back", 0.0))
    (tmp_path / "set" / "meta" / "imagewam_contract.json").unlink()
    with pytest.raises(EpisodeError, match="does not say when an action is due; give --first-row-offset"):
        list(import_dataset(tmp_path / "set", tmp_path / "back", None))
    assert len(list(import_dataset(tmp_path / "set", tmp_path / "back", 0.0))) == 1
    assert EpisodeReader(tmp_path / "back" / "episode_000000").provenance.first_row_offset_periods == 0.0


def test_foreign_data_sets_that_cannot_be_read(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0")
    run(tmp_path / "in", tmp_path / "set")
    path = tmp_path / "set" / "meta" / "info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info)[:-9])
    with pytest.raises(EpisodeError, match=r"meta/info\.json is damaged: .*; fetch the data set again"):
        list(import_dataset(tmp_path / "set", tmp_path / "back", None))
    path.write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(EpisodeError, match=r"is LeRobot v1\.6, known are v3\.0, v2\.1 and v2\.0"):
        list(import_dataset(tmp_path / "set", tmp_path / "back", None))
    features = {name: value for name, value in info["features"].items() if name != "action"}
    path.write_text(json.dumps({**info, "features": features}))
    with pytest.raises(EpisodeError, match="has no action; found observation.state"):
        list(import_dataset(tmp_path / "set", tmp_path / "back", None))
    path.write_text(json.dumps(info))
    (tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet").unlink()
    with pytest.raises(EpisodeError, match=r"lacks data/chunk-000/file-000\.parquet, where episode 0 should be"):
        list(import_dataset(tmp_path / "set", tmp_path / "back", None))


def test_idle_stretches() -> None:
    moves = np.repeat(np.array([0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3])[:, None], 2, axis=1)
    assert nonidle_ranges(moves, moves, 1e-3, 3) == [[3, 5], [8, 13]]
    assert nonidle_ranges(moves, moves, 1e-3, 4) == [[0, 13]]
    assert nonidle_ranges(moves, moves, 1.0, 3) == [[0, 13]]  # all idle is one stretch that reaches the end


def test_streams_are_described() -> None:
    report = stream_report(np.array([0, 10, 20, 30, 60, 70]) * 10**6)
    assert (report.messages, report.gaps, report.longest_gap_ms) == (6, 1, 30.0)
    assert report.rate_hz == pytest.approx(1000 / 14, rel=1e-3)
    assert stream_report(np.array([5])).rate_hz == 0.0
    assert segments(np.array([0, 10, 20, 50, 60]), 10) == [(0, 3), (3, 5)]


def test_image_statistics_equal_those_of_the_pixels() -> None:
    images = [picture("head", i) for i in range(3)]
    pixels = np.concatenate([image[::4, ::4].reshape(-1, 3) for image in images]) / 255
    found = image_statistics(histogram(images), 3)
    np.testing.assert_allclose(np.ravel(found["mean"]), pixels.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.ravel(found["std"]), pixels.std(0), atol=1e-9)
    np.testing.assert_allclose(np.ravel(found["q50"]), np.quantile(pixels, 0.5, axis=0, method="inverted_cdf"))
    np.testing.assert_allclose(np.ravel(found["max"]), pixels.max(0))


def test_authors_statistics_by_hand() -> None:
    """Two episodes of one number: every episode weighs the same, variances are those of samples."""
    states = [np.array([[0.0], [2.0]]), np.array([[10.0], [10.0], [10.0], [10.0]])]
    found = authors_statistics(states, states, horizon=2)
    state = found["state"]["default"]
    assert state["global_mean"] == [5.5]
    assert state["global_std"][0] == pytest.approx(np.sqrt((2 + 4.5**2 + 0 + 4.5**2) / 2))
    assert (state["global_q01"][0], state["global_q99"][0]) == (pytest.approx(0.02), 10.0)
    assert (state["global_min"], state["global_max"]) == ([0.0], [10.0])
    np.testing.assert_array_equal(windows(states[0], 2)[..., 0], [[0, 2], [2, 2]])
    assert found["action"]["default"]["stepwise_mean"] == [[5.5], [6.0]]
    assert found["num_transition"] == 6


def test_the_report_is_shown_when_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "in", "episode_0", frames=5)
    assert cli.main(["convert", str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1"]) == 2
    captured = capsys.readouterr()
    assert "shorter than 1 s: 5 frames" in captured.out and "every episode was rejected" in captured.err


def test_images_inside_the_table_are_read(tmp_path: Path) -> None:
    """LeRobot data sets may hold images as PNG or JPEG in the table instead of videos."""
    record(tmp_path / "in", "episode_0")
    run(tmp_path / "in", tmp_path / "set", version="v2.1")
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    path = tmp_path / "set" / "data" / "chunk-000" / "episode_000000.parquet"
    table = pq.read_table(path)
    for camera, _ in CAMERAS:
        key = f"observation.images.{camera}"
        info["features"][key]["dtype"] = "image"
        files = [cv2.imencode(".png", picture(camera, i)[..., ::-1])[1].tobytes() for i in range(30)]
        table = table.append_column(
            key, pa.array([{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)])
        )
    pq.write_table(table, path)
    (tmp_path / "set" / "meta" / "info.json").write_text(json.dumps(info))
    ((folder, frames),) = import_dataset(tmp_path / "set", tmp_path / "back", None)
    images = read_frames(folder).images["left_wrist"]
    assert frames == 30
    np.testing.assert_array_equal(images, [picture("left_wrist", i) for i in range(30)])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "in", "episode_0")
    record(tmp_path / "in", "episode_1", label="failure")
    words = ["convert", str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1", "--json"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "labelled failure, taken are success" in out
    assert json.loads(out.splitlines()[-1]) == {"episodes": 2, "accepted": 1, "rejected": 1, "frames": 30}
    assert cli.main(["convert", str(tmp_path / "set"), str(tmp_path / "back"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["frames"] == 30
    assert cli.main([*words[:2], str(tmp_path / "other"), "--latency", "head"]) == 2
    assert "expected STREAM=SECONDS, for example head=0.03" in capsys.readouterr().err
    assert convert.DEFAULT.version == "v3.0"
