# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.demo_record import Chunks, EpisodeRecord, Figures, Sent, table, totals

PERIOD_NS = 5_000_000
Make = Callable[..., EpisodeRecord]


def test_a_record_comes_back_as_it_was(tmp_path: Path, make_record: Make) -> None:
    record = make_record()
    record.save(tmp_path / "e.npz")
    found = EpisodeRecord.load(tmp_path / "e.npz")
    for part in ("sent", "measured", "chunks"):
        for mine, theirs in zip(getattr(record, part), getattr(found, part), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    facts = {"sent": record.sent, "measured": record.measured, "chunks": record.chunks}
    assert replace(found, **facts) == record


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "e.npz"
    path.write_bytes(content)
    with pytest.raises(EpisodeError, match=r"cannot read episode .*e.npz: .*; run the demo again"):
        EpisodeRecord.load(path)


def test_commands_are_values_of_core(make_record: Make) -> None:
    commands = make_record().commands()
    assert [c.tick for c in commands] == list(range(101))
    assert commands[7].nominal_ns == 10**9 + 7 * PERIOD_NS
    np.testing.assert_allclose(commands[50].position, [np.sin(1), np.cos(1)])


def test_figures_are_what_the_record_shows(make_record: Make) -> None:
    figures = Figures.of(make_record(), limit_violations=2)
    assert figures.rtf == 0.98
    assert figures.chunks == 21
    assert figures.inference_ms == (70.0, 88.0)
    assert figures.camera_to_chunk_ms == (100.0, 100.0)
    assert figures.executor_hz == 200.0
    assert figures.jitter_ms == (0.0, 0.0)
    assert figures.camera_hz == 18.0
    assert (figures.limit_hits, figures.limit_violations) == (4, 2)


def test_jitter_sees_a_late_command_and_the_one_after_it(make_record: Make) -> None:
    record = make_record(ticks=5)
    assert Figures.of(record, 0).jitter_ms == (1.0, 2.0)


def test_an_episode_without_chunks_and_commands_is_reported_too(make_record: Make) -> None:
    empty = np.zeros(0)
    none = np.zeros(0, dtype=np.int64)
    record = replace(
        make_record(success=False),
        sent=Sent(none, none, none, np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2))),
        chunks=Chunks(none, none, empty),
    )
    figures = Figures.of(record, 0)
    assert figures.inference_ms is None
    assert figures.executor_hz == 0.0
    assert "NO" in table([figures])
    assert json.loads(json.dumps(totals([figures])))["inference_ms"] is None


def test_totals_count_successes_and_show_the_worst_rate(make_record: Make) -> None:
    good, bad = Figures.of(make_record(), 0), replace(Figures.of(make_record(success=False), 3), rtf=0.5)
    assert totals([good, bad]) == {
        "episodes": 2,
        "successes": 1,
        "rtf": 0.5,
        "executor_hz": 200.0,
        "camera_hz": 18.0,
        "limit_violations": 3,
        "camera_to_chunk_ms": 100.0,
        "inference_ms": 70.0,
    }


def test_the_table_has_a_row_per_episode_in_columns(make_record: Make) -> None:
    text = table([Figures.of(make_record(seed=s), 0) for s in (0, 1, 1000)])
    lines = text.splitlines()
    assert len(lines) == 6
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[4].split()[:3] == ["3", "1000", "yes"]
