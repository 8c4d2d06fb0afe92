# SPDX-License-Identifier: Apache-2.0
"""Episodes: written equals read, cut off is never whole, other readers understand the file."""

from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import JointState
from imagewam_ros.data.episode import EpisodeReader, EpisodeWriter, find_episodes, read_provenance
from imagewam_ros.data.lerobot_convert import convert
from imagewam_ros.data.lerobot_judge import ConvertConfig
from imagewam_ros.data.recover import recover


def test_what_was_written_is_read(rig: Any) -> None:
    samples = list(EpisodeReader(rig.record(frames=3)).samples())
    assert [s.stream for s in samples].count("head") == 3
    joints = [s.value for s in samples if s.stream == "joints"]
    assert len(joints) == 6 and all(isinstance(j, JointState) and j.joint_names == rig.joint_names for j in joints)
    rng = np.random.default_rng(7)
    image = next(s.value for s in samples if s.stream == "head")
    assert isinstance(image, np.ndarray)
    assert np.array_equal(image, rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
    assert [s.stamp_ns for s in samples] == sorted(s.stamp_ns for s in samples)


def test_streams_can_be_chosen(rig: Any) -> None:
    assert {s.stream for s in EpisodeReader(rig.record()).samples({"action"})} == {"action"}


def test_provenance_survives(rig: Any) -> None:
    found = read_provenance(rig.record(label="failure", seed=11))
    assert (found.robot, found.instruction, found.label, found.seed) == ("pair", "wave", "failure", 11)
    assert found.joint_names == rig.joint_names and dict(found.cameras)["head"] == "head_camera/image"
    assert found.first_row_offset_periods == 1.0
    assert dict(found.software)["numpy"] == np.__version__


def test_another_reader_understands_the_file(rig: Any) -> None:
    path = next(rig.record(frames=2).glob("*.mcap"))
    with path.open("rb") as file:
        schemas = {schema.name for schema, _, _ in make_reader(file).iter_messages() if schema}
    assert schemas == {"sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"}


def test_cut_off_episode_is_not_whole(rig: Any) -> None:
    with rig.writer("cut") as writer:
        rig.write(writer, 3)
    with pytest.raises(EpisodeError, match="its recording was cut off"):
        EpisodeReader(rig.root / "cut")
    with pytest.raises(EpisodeError, match=r"no whole episode in .* \(1 cut off\)"):
        find_episodes(rig.root)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"rosbag2: [", r"metadata\.yaml is damaged \(while parsing a flow"),
        (b"", r"metadata\.yaml is damaged .* then recover the recording"),
        (b"\xff\xfe\x00", r"metadata\.yaml is damaged \('utf-8' codec"),
        (b"rosbag2_bagfile_information: {custom_data: {imagewam: '{{'}}", "'imagewam' in its custom data is damaged"),
        (b"rosbag2_bagfile_information: {}", "is a bag without 'imagewam' in its custom data; label it"),
    ],
)
def test_damaged_metadata_is_named_and_made_anew(rig: Any, text: bytes, reason: str) -> None:
    folder = rig.record()
    (folder / "metadata.yaml").write_bytes(text)
    with pytest.raises(EpisodeError, match=reason):
        read_provenance(folder)
    with pytest.raises(EpisodeError, match="none of 1 episodes .* is labelled success; .* other labels; .*" + reason):
        list(convert(rig.root, rig.root / "out", ConvertConfig(), workers=1))
    (folder / "metadata.yaml").unlink()
    assert recover(folder).messages
    assert read_provenance(folder).instruction == rig.provenance().instruction


def test_damaged_file_is_named(rig: Any) -> None:
    folder = rig.record()
    path = next(folder.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EpisodeError, match="is damaged"):
        list(EpisodeReader(folder).samples())


def test_discard_leaves_nothing(rig: Any) -> None:
    writer = rig.writer("bad")
    rig.write(writer, 2)
    writer.discard()
    assert not (rig.root / "bad").exists()


def test_nothing_is_overwritten(rig: Any) -> None:
    folder = rig.record()
    with pytest.raises(EpisodeError, match="exists; record to another folder"):
        EpisodeWriter(folder, rig.provenance())


def test_foreign_bag_and_missing_folder_are_named(rig: Any) -> None:
    folder = rig.record()
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("imagewam:", "other:"))
    with pytest.raises(EpisodeError, match="without 'imagewam' in its custom data"):
        read_provenance(folder)
    with pytest.raises(EpisodeError, match="no episode at"):
        read_provenance(rig.root / "nowhere")


def test_bad_input_is_refused(rig: Any) -> None:
    with rig.writer("e") as writer:
        with pytest.raises(EpisodeError, match="unknown camera 'haed'; did you mean 'head'"):
            writer.image("haed", 0, np.zeros((8, 12, 3), np.uint8))
        with pytest.raises(EpisodeError, match="expected uint8 RGB"):
            writer.image("head", 0, np.zeros((8, 12), np.uint8))
        with pytest.raises(EpisodeError, match="unknown label 'succes'; did you mean 'success'"):
            writer.finish("succes")
