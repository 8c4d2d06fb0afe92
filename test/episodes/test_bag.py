# SPDX-License-Identifier: Apache-2.0
"""Bags are read by other programs as they were written, and a torn one is never taken for whole."""

import gc
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.data.bag import METADATA, BagWriter, Topic, rewrite_custom
from imagewam_ros.data.bag_images import COMPRESSED, RAW, compress, to_rgb
from imagewam_ros.data.bag_recorder import Recording, RecordingConfig
from imagewam_ros.data.bag_types import definition, typestore
from imagewam_ros.data.recover import cut_off, recover

JOINTS = "sensor_msgs/msg/JointState"
CHUNK = "imagewam_ros/msg/ActionChunk"
SMALL = RecordingConfig(flush_s=0.05, free_mb=0)


def stamp(stamp_ns: int, frame: str = "") -> object:
    types = typestore().types
    time_ = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return types["std_msgs/msg/Header"](stamp=time_, frame_id=frame)


def joint_state(stamp_ns: int, positions: list[float]) -> bytes:
    names = [f"joint_{i}" for i in range(len(positions))]
    message = typestore().types[JOINTS](
        header=stamp(stamp_ns),
        name=names,
        position=np.array(positions, np.float64),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )
    return bytes(typestore().serialize_cdr(message, JOINTS))


def raw_image(stamp_ns: int, pixels: np.ndarray, encoding: str = "rgb8") -> bytes:
    height, width = pixels.shape[:2]
    message = typestore().types[RAW](
        header=stamp(stamp_ns, "head"),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
    )
    return bytes(typestore().serialize_cdr(message, RAW))


def custom_data(directory: Path) -> dict[str, str]:
    information = yaml.safe_load((directory / METADATA).read_text())["rosbag2_bagfile_information"]
    return dict(information["custom_data"])


def write_bag(directory: Path, messages: int, *, close: bool = True, compression: str = "none") -> BagWriter:
    bag = BagWriter(directory, {"imagewam": '{"robot": "cell"}'}, compression)
    joints = bag.add(Topic("/joint_states", JOINTS))
    chunks = bag.add(Topic("/policy/action_chunk", CHUNK))
    for i in range(messages):
        bag.write(joints, 10**9 + i, joint_state(i, [i / 7, -i]))
    assert chunks != joints
    if close:
        bag.close({"label": "success"})
    else:
        bag.flush()
    return bag


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_rosbags_and_mcap_read_what_was_written(tmp_path: Path, compression: str) -> None:
    write_bag(tmp_path / "one", 500, compression=compression)
    with AnyReader([tmp_path / "one"]) as reader:
        read = [reader.deserialize(data, c.msgtype).position for c, _, data in reader.messages()]
        assert reader.topics["/joint_states"].msgcount == 500
        assert CHUNK in reader.typestore.types
    np.testing.assert_array_equal(read, [[i / 7, -i] for i in range(500)])
    with (tmp_path / "one" / "one_0.mcap").open("rb") as file:
        found = make_reader(file, validate_crcs=True)
        assert sum(1 for _ in found.iter_messages()) == 500
        assert found.get_header().profile == "ros2"
    data = yaml.safe_load((tmp_path / "one" / METADATA).read_text())["rosbag2_bagfile_information"]
    assert (data["message_count"], data["custom_data"]) == (500, {"label": "success"})
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [METADATA, "one_0.mcap"]
    assert data["starting_time"]["nanoseconds_since_epoch"] == 10**9


def test_definitions_carry_what_they_refer_to() -> None:
    text, type_hash = definition(CHUNK)
    assert "MSG: std_msgs/Header" in text and "float32 first_row_offset_periods" in text
    assert re.fullmatch(r"RIHS01_[0-9a-f]{64}", type_hash)
    with pytest.raises(EpisodeError, match=r"no definition of gripper_msgs/msg/Force: .* source the workspace"):
        definition("gripper_msgs/msg/Force")


def test_types_of_other_packages_are_found_where_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "share" / "wrench_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Sample.msg").write_text("float64 force\n")
    (folder / "Array.msg").write_text("std_msgs/Header header\nSample[] samples  # N\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert "MSG: wrench_msgs/Sample" in definition("wrench_msgs/msg/Array").text


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(EpisodeError, match="one exists; record to another folder or remove it first"):
        BagWriter(tmp_path / "one", {})
    with pytest.raises(EpisodeError, match="unknown compression 'zip'"):
        BagWriter(tmp_path / "two", {}, "zip")
    (tmp_path / "file").touch()
    with pytest.raises(EpisodeError, match=r"cannot record to .*file/three: .*; choose another folder"):
        BagWriter(tmp_path / "file" / "three", {})


def test_a_bag_that_was_not_closed_has_no_metadata(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "one", {}) as bag:
        bag.write(bag.add(Topic("/joint_states", JOINTS)), 1, joint_state(1, [0.0]))
        raise RuntimeError
    assert not (tmp_path / "one" / METADATA).exists()
    with pytest.raises(EpisodeError, match=r"has no metadata\.yaml: its recording was cut off"):
        rewrite_custom(tmp_path / "one", {"label": "success"})


def test_custom_data_of_a_whole_bag_can_be_changed(tmp_path: Path) -> None:
    write_bag(tmp_path / "one", 3)
    rewrite_custom(tmp_path / "one", {"label": "failure", "note": "slipped"})
    assert custom_data(tmp_path / "one") == {"label": "failure", "note": "slipped"}
    with Reader(tmp_path / "one") as reader:
        assert len(list(reader.messages())) == 3


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_recovery_gives_back_all_complete_blocks_wherever_the_file_is_cut(tmp_path: Path, compression: str) -> None:
    bag = BagWriter(tmp_path / "whole", {"imagewam": "{}"}, compression)
    channel = bag.add(Topic("/joint_states", JOINTS))
    ends = []
    for block in range(4):
        for i in range(50):
            bag.write(channel, block * 1000 + i + 1, joint_state(i, [block, i]))
        bag.flush()
        ends.append(bag.path.stat().st_size)
    bag.abort()
    cuts = [*ends, ends[1] - 1, ends[1] + 1, ends[2] + 40, ends[2] - 300, ends[3] - 900]
    for number, cut in enumerate(cuts):
        folder = tmp_path / f"cut_{number}"
        folder.mkdir()
        (folder / "cut.mcap").write_bytes(bag.path.read_bytes()[:cut])
        found = recover(folder, {"note": "recovered"})
        with AnyReader([folder]) as reader:
            values = [reader.deserialize(data, c.msgtype).position for c, _, data in reader.messages()]
        assert len(values) == found.messages and found.messages % 50 == 0
        assert found.messages >= 50 * sum(end <= cut for end in ends)
        assert [v[0] * 50 + v[1] for v in values] == list(range(len(values)))
        with (folder / "cut.mcap").open("rb") as file:
            assert sum(1 for _ in make_reader(file).iter_messages(topics=["/joint_states"])) == found.messages
        assert custom_data(folder) == {"imagewam": "{}", "note": "recovered"}


def test_recovery_refuses_what_is_whole_empty_or_no_recording(tmp_path: Path) -> None:
    write_bag(tmp_path / "one", 3)
    with pytest.raises(EpisodeError, match=r"one is whole already: it has a metadata\.yaml"):
        recover(tmp_path / "one")
    (tmp_path / "two").mkdir()
    with pytest.raises(EpisodeError, match=r"two holds 0 \.mcap files, expected one"):
        recover(tmp_path / "two")
    (tmp_path / "two" / "two.mcap").write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(EpisodeError, match="holds no complete block of 8 bytes; remove"):
        recover(tmp_path / "two")
    assert cut_off(tmp_path) == [tmp_path / "two"]


def test_a_recording_that_goes_on_is_not_recovered(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "one", 3, close=False)
    with pytest.raises(EpisodeError, match="one is being recorded; stop the recorder first"):
        recover(tmp_path / "one")
    bag.close({})
    with Reader(tmp_path / "one") as reader:
        assert len(list(reader.messages())) == 3


def test_what_could_not_be_finished_is_left_alone_and_recovered(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "one", 300, close=False)
    for i in range(5):
        bag.write(1, 2 * 10**9 + i, joint_state(i, [0.0]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bag.path.stat().st_size, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            bag.close({})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert recover(tmp_path / "one").messages == 300
    size = bag.path.stat().st_size
    del bag
    gc.collect()
    assert (tmp_path / "one" / "one_0.mcap").stat().st_size == size, "nothing is written late"
    with Reader(tmp_path / "one") as reader:
        assert len(list(reader.messages())) == 300


def test_a_damaged_block_ends_the_recovery_before_it(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "one", 400, close=False)
    first = bag.path.stat().st_size
    bag.write(1, 10**9 + 400, joint_state(400, [1.0, 2.0]))
    bag.flush()
    bag.abort()
    content = bytearray(bag.path.read_bytes())
    content[first + 100] ^= 0xFF
    bag.path.write_bytes(content)
    assert recover(tmp_path / "one").messages == 400


KILLED = """
import sys, time
from pathlib import Path
from imagewam_ros.data.bag import Topic
from imagewam_ros.data.bag_recorder import Recording, RecordingConfig
recording = Recording(Path(sys.argv[1]), {}, RecordingConfig(flush_s=0.2, free_mb=0))
stream = recording.add(Topic("/counter", "std_msgs/msg/Int64"))
for i in range(10**9):
    recording.put(stream, time.time_ns(), b"\\x00\\x01\\x00\\x00" + i.to_bytes(8, "little"), sequence=i + 1)
    print(i, flush=True)
    time.sleep(0.002)
"""


def test_kill_loses_at_most_a_second(tmp_path: Path) -> None:
    """One message every 2 ms, so 500 of them are a second or, on a busy machine, more."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "one")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(1000):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    sent = 1000 + len(rest)
    found = recover(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [METADATA, "one_0.mcap"]
    assert sent - 500 <= found.messages <= sent + 1


def test_recording_counts_what_came_and_what_is_missing(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "one", {"imagewam": "{}"}, SMALL)
    stream = recording.add(Topic("/joint_states", JOINTS))
    for i, sequence in enumerate([1, 2, 5, 6]):
        recording.put(stream, i * 10**7, joint_state(i, [0.0]), sequence=sequence)
    report = recording.stop(lambda: {"label": "success"})
    counts = report["topics"]["/joint_states"]
    assert (counts["received"], counts["written"], counts["dropped"], counts["lost"]) == (4, 4, 0, 2)
    assert counts["rate_hz"] == 100 and counts["longest_gap_s"] == 0.01
    assert recording.messages == 4 and recording.written_bytes == counts["bytes"]
    assert custom_data(tmp_path / "one")["label"] == "success"


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    config = RecordingConfig(queue_mb=1, free_mb=0, image_format="png", encoder_threads=1)
    recording = Recording(tmp_path / "one", {}, config)
    stream = recording.add(Topic("/head", RAW))
    picture = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    for i in range(20):
        recording.put(stream, i, raw_image(i, picture))
    counts = recording.stop()["topics"]["/head/compressed"]
    assert counts["dropped"] > 0 and counts["written"] + counts["dropped"] == 20


def test_images_are_compressed_on_the_way(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    recording = Recording(tmp_path / "one", {}, RecordingConfig(free_mb=0, image_format="png"))
    stream, other = recording.add(Topic("/head", RAW)), recording.add(Topic("/joint_states", JOINTS))
    for i in range(5):
        recording.put(stream, 2 * i, raw_image(i, picture + i))
        recording.put(other, 2 * i + 1, joint_state(i, [0.5]))
    recording.stop()
    with AnyReader([tmp_path / "one"]) as reader:
        assert reader.topics["/head/compressed"].msgtype == COMPRESSED
        images = [
            reader.deserialize(data, c.msgtype) for c, _, data in reader.messages() if c.topic == "/head/compressed"
        ]
    for i, message in enumerate(images):
        np.testing.assert_array_equal(to_rgb(message), picture + i)
        assert message.format == "rgb8; png compressed" and message.header.stamp.nanosec == i


def test_an_image_that_cannot_be_compressed_ends_the_recording_with_a_whole_bag(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "one", {}, RecordingConfig(free_mb=0, image_format="jpeg"))
    stream, other = recording.add(Topic("/head", RAW)), recording.add(Topic("/joint_states", JOINTS))
    recording.put(other, 1, joint_state(1, [0.5]))
    recording.put(stream, 2, raw_image(2, np.zeros((4, 4, 2), np.uint8), "yuv422"))
    recording.put(other, 3, joint_state(3, [0.5]))
    report = recording.stop()
    assert "images are encoded as 'yuv422'" in report["failure"]
    with Reader(tmp_path / "one") as reader:
        assert len(list(reader.messages())) >= 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_program_ends_a_recording_too(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "one", {}, SMALL)
    stream = recording.add(Topic("/joint_states", JOINTS))
    recording.put(stream, 1, joint_state(1, [0.5]))
    recording.put(stream, 2, None or memoryview(b""), publish_ns="never")  # type: ignore[arg-type]
    assert "the writer stopped by a fault of the program" in recording.stop()["failure"]


def test_encodings() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    decode = typestore().deserialize_cdr
    np.testing.assert_array_equal(to_rgb(decode(raw_image(0, picture), RAW)), picture)
    np.testing.assert_array_equal(to_rgb(decode(raw_image(0, picture, "bgr8"), RAW)), picture[..., ::-1])
    np.testing.assert_array_equal(to_rgb(decode(raw_image(0, picture[..., :1], "mono8"), RAW))[..., 2], picture[..., 0])
    four = np.concatenate([picture, picture[..., :1]], axis=2)
    np.testing.assert_array_equal(to_rgb(decode(raw_image(0, four, "bgra8"), RAW)), picture[..., ::-1])
    with pytest.raises(EpisodeError, match="images are encoded as 'yuv422', expected one of rgb8, bgr8"):
        to_rgb(decode(raw_image(0, picture, "yuv422"), RAW))
    torn = decode(raw_image(0, picture), RAW)
    torn.data = torn.data[:-1]
    with pytest.raises(EpisodeError, match="an image of 4x2 rgb8 holds 23 bytes in rows of 12; is the driver right"):
        to_rgb(torn)
    jpeg = decode(compress(raw_image(0, np.full((16, 16, 3), 90, np.uint8)), "jpeg", 95), COMPRESSED)
    assert jpeg.format == "rgb8; jpeg compressed bgr8" and abs(int(to_rgb(jpeg)[8, 8, 0]) - 90) <= 2
    jpeg.data = jpeg.data[:10]
    with pytest.raises(EpisodeError, match=r"a compressed image .* cannot be decoded"):
        to_rgb(jpeg)
    depth = np.array([[1, 60000]], dtype=np.uint16)
    assert decode(compress(raw_image(0, depth, "16UC1"), "png", 1), COMPRESSED).format == "16UC1; png compressed"


def test_a_nearly_full_disk_refuses_the_start_and_ends_a_recording(tmp_path: Path) -> None:
    free_mb = int(shutil.disk_usage(tmp_path).free / 1e6)
    with pytest.raises(EpisodeError, match=r"only \d+ MB are left on the disk .* free some space"):
        Recording(tmp_path / "one", {}, RecordingConfig(free_mb=free_mb * 2))
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image_format": "jpg"}, "unknown image_format 'jpg'; did you mean 'jpeg'"),
        ({"jpeg_quality": 0}, "jpeg_quality is 1 to 100"),
        ({"flush_s": 0.0}, "flush_s is above 0"),
    ],
)
def test_configuration_is_checked(change: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        RecordingConfig(**change)  # type: ignore[arg-type]
