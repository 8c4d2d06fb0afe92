# SPDX-License-Identifier: Apache-2.0
"""The recorder's benchmark counts every message, and fails where one is missing."""

import json
from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader

from imagewam_ros import bench_recorder, cli
from imagewam_ros.nodes import recorder_load_node


@pytest.mark.slow
def test_nothing_is_lost_at_a_small_load(domain: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "recorder", "--seconds", "2", "--width", "160", "--height", "120", "--out", str(tmp_path)]
    assert cli.main([*words, "--camera-hz", "10", "--joint-hz", "50", "--json"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["published"], line["recorded"], line["dropped"]) == (3 * 20 + 2 * 100, 3 * 20 + 2 * 100, 0)
    assert 1.4 < line["mb_per_s"] < 1.8 and 0 < line["cpu_share"] < 2
    with AnyReader(list(tmp_path.glob("episode_*"))) as reader:
        assert reader.topics["/arm/joint_states"].msgcount == 100


def test_losses_are_counted(tmp_path: Path) -> None:
    topics = [{"topic_metadata": {"name": "/joint_states"}, "message_count": 7}]
    (tmp_path / "metadata.yaml").write_text(
        json.dumps({"rosbag2_bagfile_information": {"topics_with_message_count": topics}})
    )
    load = {"published": {"joint_states": 10}, "pixels": 10**6, "seconds": 2.0, "late_s": 0.0, "episode": str(tmp_path)}
    first = bench_recorder._Moment(0.0, {"recorder": 1.0, "load": 1.0})
    result = bench_recorder._result(load, first, bench_recorder._Moment(2.0, {"recorder": 2.0, "load": 1.5}))
    assert (result["dropped"], result["mb_per_s"], result["cpu_share"]) == (3, 0.5, 0.5)
    assert "joint_states" in bench_recorder.table(result)


def test_wrong_seconds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "recorder", "--seconds", "0"]) == 2
    assert "--seconds must be positive, found 0.0" in capsys.readouterr().err


def test_both_sides_mark_the_same_stretch() -> None:
    marks = (recorder_load_node.BEGIN, recorder_load_node.END, recorder_load_node.ARM_TOPIC)
    assert marks == (bench_recorder.BEGIN, bench_recorder.END, bench_recorder.ARM_TOPIC)
