# SPDX-License-Identifier: Apache-2.0
"""Which frames count as corrected, and that training learns from no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_training import SMALL, write_episodes

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.episode import find_episodes, read_provenance
from imagewam_ros.data.interventions import SHORTEST, SpanKeeper, corrected, lessons
from imagewam_ros.training.episodes import choose_episodes
from imagewam_ros.training.pixels import ReadConfig, read_footage
from imagewam_ros.training.presets import contract_of

PERIOD_NS = 50_000_000


def test_spans_open_and_close_with_the_state() -> None:
    keeper = SpanKeeper()
    for stamp, taken in ((1, False), (2, True), (3, True), (4, False), (5, False), (6, True)):
        keeper.tell(stamp, taken)
    assert keeper.spans == ((2, 3), (6, 6)), "the one that goes on is there too"


@given(st.lists(st.booleans(), max_size=60))
def test_lessons_are_the_long_runs_of_corrected_frames(labels) -> None:
    keeper = SpanKeeper()
    for stamp, label in enumerate(labels):
        keeper.tell(stamp, label)
    stamps = np.arange(len(labels))
    assert corrected(stamps, keeper.spans).tolist() == labels
    found = lessons(stamps, keeper.spans)
    if any(labels):
        assert all(all(labels[rows]) and len(labels[rows]) >= SHORTEST for rows in found)
        runs = "".join("x" if label else " " for label in labels).split()
        assert [rows.stop - rows.start for rows in found] == [len(run) for run in runs if len(run) >= SHORTEST]
    else:
        assert found == [slice(0, len(labels))], "a demonstration counts as a whole"


def test_a_policy_that_nobody_helped_teaches_where_asked_for(tmp_path) -> None:
    write_episodes(tmp_path / "alone", 1, policy_ran=True)
    write_episodes(tmp_path / "helped", 1, policy_ran=True, interventions=((0, 5 * PERIOD_NS),))
    chosen = choose_episodes([tmp_path / "alone", tmp_path / "helped"])
    assert [path.parent.name for path in chosen.episodes] == ["helped"]
    assert chosen.left_out == {"done by a policy alone (--policy-runs learns from them)": 1}
    assert len(choose_episodes([tmp_path / "alone", tmp_path / "helped"], policy_runs=True).episodes) == 2
    with pytest.raises(EpisodeError, match=r"none of 1 episodes .*\(1 done by a policy alone \(--policy-runs"):
        choose_episodes([tmp_path / "alone"])


def test_training_reads_the_corrections_alone(tmp_path) -> None:
    spans = ((2 * PERIOD_NS, 6 * PERIOD_NS), (9 * PERIOD_NS, 12 * PERIOD_NS))
    write_episodes(tmp_path / "fixed", 1, frames=14, interventions=spans)
    write_episodes(tmp_path / "shown", 1, frames=14)
    (fixed,), (shown,) = find_episodes(tmp_path / "fixed"), find_episodes(tmp_path / "shown")
    assert read_provenance(fixed).interventions == spans
    contract = contract_of(SMALL, load_embodiment("sim_cell"), read_provenance(shown))
    footage = read_footage([fixed, shown], contract.mosaic, tmp_path, ReadConfig(workers=1))
    assert [len(d.positions) for d in footage.demonstrations] == [5, 4, 14]
    assert len(footage.mosaics) == 23
    whole = footage.demonstrations[2]  # the same seed, so the same motion
    assert np.array_equal(footage.demonstrations[0].positions, whole.positions[2:7])
    assert np.array_equal(footage.demonstrations[1].actions, whole.actions[9:13])
    assert np.array_equal(footage.mosaics[:5], footage.mosaics[9 + 2 : 9 + 7])
