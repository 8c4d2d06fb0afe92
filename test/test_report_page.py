# SPDX-License-Identifier: Apache-2.0
"""The evaluation's report: the same figures in both files, and nothing in them runs."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.demo_pictures import CAPTION, FRONT_WIDTH, HEIGHT, tiles
from imagewam_ros.doctor_checks.finding import WIDTH, Finding, Level, page, worst
from imagewam_ros.evaluation.drivers import CONDITIONS
from imagewam_ros.evaluation.report import write_report
from imagewam_ros.evaluation.trial import Outcome

TEXTS = st.text("ab <>&'\"", max_size=20)


def outcome(seed, condition="normal", success=True):
    return Outcome(condition, seed, success, 3.5, 7, 0, 1, 0)


def line(**changes):
    rows = {"normal": {"successes": 3, "episodes": 4, "interval": (0.3, 0.954), "failed_seeds": [12]}}
    return {"task": "tray_lift", "rows": rows, **changes}


def written(folder, facts, outcomes, videos=()):
    task = facts["task"]
    path = write_report(folder, [facts], {task: outcomes}, {task: videos}, {"machine": "<here>", "versions": {"a": 1}})
    return json.loads((folder / "report.json").read_text()), path.read_text()


def test_both_files_say_the_same(tmp_path):
    data, text = written(tmp_path, line(), {"normal": [outcome(seed, success=seed != 12) for seed in range(10, 14)]})
    assert [trial["seed"] for trial in data["trials"]] == [10, 11, 12, 13]
    assert sum(trial["success"] for trial in data["trials"]) == 3
    assert "<td>3/4</td>" in text and "<td>30.0 to 95.4 %</td>" in text and "<td>12</td>" in text


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_is_explained(tmp_path, name):
    _, text = written(tmp_path, line(rows={name: line()["rows"]["normal"]}), {})
    assert f"<td>{CONDITIONS[name]}</td>" in text


@pytest.mark.parametrize("spoilt", ["<script>alert(1)</script>", '"><img src=x>', "a & b"])
def test_what_comes_from_outside_is_escaped(tmp_path, spoilt):
    _, text = written(tmp_path, line(task=spoilt, checkpoint=spoilt), {}, [tmp_path / f"{spoilt[:3]}.mp4"])
    assert spoilt not in text and "<script" not in text and "<img" not in text


def test_provenance_and_sources_are_on_the_page(tmp_path):
    data, text = written(tmp_path, line(), {})
    assert data["provenance"]["machine"] == "<here>" and "<li>versions: a 1</li>" in text
    assert "&lt;here&gt;" in text and "arXiv 2606.19531" in text and "nothing here was measured" in text


def test_videos_are_shown_beside_the_table(tmp_path):
    _, text = written(tmp_path, line(), {}, [tmp_path / "failure_12.mp4"])
    assert "src='failure_12.mp4'" in text and "<figcaption>failure_12</figcaption>" in text


def test_many_failures_are_cut_to_twenty(tmp_path):
    rows = {"normal": {**line()["rows"]["normal"], "failed_seeds": list(range(100, 150))}}
    _, text = written(tmp_path, line(rows=rows), {})
    assert "118, 119 and 30 more</td>" in text and "120" not in text


FINDINGS = st.lists(
    st.builds(Finding, st.text("abc ", min_size=1, max_size=12), st.sampled_from(Level), TEXTS, TEXTS), max_size=8
)


@given(FINDINGS)
def test_the_page_counts_every_finding_once(findings):
    text = page("title", findings)
    counts = dict(reversed(part.split()) for part in text.splitlines()[-1].split(", "))
    assert {level.name.lower(): str(sum(f.level is level for f in findings)) for level in Level} == counts
    assert all(len(row) <= WIDTH for row in text.splitlines())


@given(FINDINGS)
def test_the_worst_finding_counts(findings):
    assert worst(findings) == max((f.level for f in findings), default=Level.SKIP)
    assert all(set(f.to_dict()) == {"check", "level", "found", "remedy"} for f in findings)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiles_show_every_camera_in_its_place(count):
    front = np.full((240, 320, 3), 200, np.uint8)
    cameras = {f"camera_{i}": np.full((64, 64, 3), 60 + 40 * i, np.uint8) for i in range(count)}
    found = tiles(front, cameras, "seed 1")
    side = HEIGHT // count
    assert found.shape == (HEIGHT + CAPTION, FRONT_WIDTH + side, 3)
    assert (found[:HEIGHT, :FRONT_WIDTH] == 200).all()
    for i in range(count):
        assert (found[(i + 1) * side - 4, FRONT_WIDTH + 4] == 60 + 40 * i).all()


def test_the_caption_is_written_below():
    front = np.zeros((480, 640, 3), np.uint8)
    empty, text = (tiles(front, {}, caption)[HEIGHT:] for caption in ("", "lift the tray"))
    assert not empty.any() and text.any()
