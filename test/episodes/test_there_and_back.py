# SPDX-License-Identifier: Apache-2.0
"""What a data set must not lose or mix up on its way: labels, seeds, corrections, and which episodes it was made of."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_recordings import PERIOD_NS, START_NS, record, run

from imagewam_ros import cli
from imagewam_ros.core.errors import DiskError, EpisodeError
from imagewam_ros.data.episode import Provenance, find_episodes, read_provenance
from imagewam_ros.data.lerobot_carried import CARRIED, CONTRACT, EPISODES
from imagewam_ros.data.lerobot_convert import convert
from imagewam_ros.data.lerobot_import import import_dataset
from imagewam_ros.data.lerobot_judge import ConvertConfig

AT = [START_NS + frame * PERIOD_NS for frame in range(60)]


def back(root: Path, out: Path, offset: float | None = None) -> list[Provenance]:
    return [read_provenance(folder) for folder, _ in list(import_dataset(root, out, offset))]


def data_set(root: Path, episodes: int = 2, **about: str) -> Path:
    for number in range(episodes):
        record(root / "in", f"episode_{number}", **about)
    run(root / "in", root / "set")
    return root / "set"


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Refuse to let any file of this process grow beyond `limit` bytes: libav, arrow and Python all notice."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_labels_and_seeds_come_back(tmp_path: Path, version: str) -> None:
    """A failure is no demonstration, and a scene of the evaluation (seed 5) stays one that training refuses."""
    record(tmp_path / "in", "episode_0", label="failure", seed=5, task="tray", operator="ann", contract_hash="a1")
    record(tmp_path / "in", "episode_1", seed=1_000_003, instruction="lift it")
    run(tmp_path / "in", tmp_path / "set", version=version, labels=("success", "failure"))
    found = back(tmp_path / "set", tmp_path / "back")
    recorded = [read_provenance(folder) for folder in find_episodes(tmp_path / "in")]
    assert [[getattr(about, name) for name in CARRIED] for about in found] == [
        [getattr(about, name) for name in CARRIED] for about in recorded
    ]
    assert [(about.label, about.seed) for about in found] == [("failure", 5), ("success", 1_000_003)]


def test_runs_of_a_policy_are_taken_where_asked_for_and_stay_so(tmp_path: Path) -> None:
    record(tmp_path / "in", "episode_0", policy_ran=True)
    record(tmp_path / "in", "episode_1", policy_ran=True, interventions=((AT[5], AT[20]),))
    reports = run(tmp_path / "in", tmp_path / "corrected")
    assert [one.reason for one in reports] == [
        "a policy did it and nobody took over; --policy-runs takes such episodes as a whole", ""
    ]  # fmt: skip
    run(tmp_path / "in", tmp_path / "set", policy_runs=True)
    assert [about.unaided for about in back(tmp_path / "set", tmp_path / "back")] == [True, False]


def test_a_data_set_of_others_holds_successes_of_no_known_scene(tmp_path: Path) -> None:
    root = data_set(tmp_path, 1)
    (root / "meta" / CONTRACT).unlink()
    (root / "meta" / EPISODES).unlink()
    (about,) = back(root, tmp_path / "back", 0.0)
    assert (about.label, about.seed, about.operator) == ("success", -1, "LeRobot v3.0")


def test_lost_labels_are_not_made_up(tmp_path: Path) -> None:
    root = data_set(tmp_path, 2)
    path = root / "meta" / EPISODES
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n")
    with pytest.raises(EpisodeError, match=r"tells of 1 episodes, and the data set's 2 are not those: it was changed"):
        back(root, tmp_path / "back")
    path.write_text("\n".join([lines[0], json.dumps({**json.loads(lines[1]), "length": 29})]))
    with pytest.raises(EpisodeError, match="tells of 2 episodes, and the data set's 2 are not those"):
        back(root, tmp_path / "back")
    path.unlink()
    with pytest.raises(EpisodeError, match=r"lacks meta/imagewam_episodes\.jsonl with labels and seeds; convert again"):
        back(root, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_parts_that_nobody_corrected_are_left_out(tmp_path: Path) -> None:
    """Without its interventions such a part would come back as a demonstration of what the policy did wrong."""
    record(tmp_path / "in", "episode_0", frames=60, skip=(25,), interventions=((AT[30], AT[50]),))
    record(tmp_path / "in", "episode_1", interventions=((AT[10], AT[12]),))
    reports = {one.name: one.reason for one in run(tmp_path / "in", tmp_path / "set", split_holes=True)}
    untaught = "of a corrected run, without 4 corrected frames in a row: nothing to learn from"
    assert reports == {"episode_0_part_0": untaught, "episode_0_part_1": "", "episode_1": untaught}
    assert [about.interventions for about in back(tmp_path / "set", tmp_path / "back")] == [((AT[30], AT[50]),)]


def test_a_killed_import_goes_on(tmp_path: Path) -> None:
    root = data_set(tmp_path, 3)
    unfinished = import_dataset(root, tmp_path / "back", None)
    next(unfinished)
    unfinished.close()
    made = tmp_path / "back.part" / "episodes"
    torn = shutil.copytree(made / "episode_000000", made / "episode_000001")
    (torn / "metadata.yaml").unlink()  # what is left of an episode whose writer was killed
    written = (made / "episode_000000" / "metadata.yaml").stat().st_mtime_ns
    assert not (tmp_path / "back").exists()
    assert len(back(root, tmp_path / "back")) == 3 and not (tmp_path / "back.part").exists()
    assert (tmp_path / "back" / "episode_000000" / "metadata.yaml").stat().st_mtime_ns == written
    with pytest.raises(EpisodeError, match="back exists; choose another folder or remove it first"):
        back(root, tmp_path / "back")


def test_an_import_goes_on_with_the_same_data_set_only(tmp_path: Path) -> None:
    tray, blocks = data_set(tmp_path / "tray"), data_set(tmp_path / "blocks", instruction="stack")
    unfinished = import_dataset(tray, tmp_path / "back", None)
    next(unfinished)
    unfinished.close()
    with pytest.raises(EpisodeError, match=rf"back\.part was begun with other options \(root {tray}, meta \w+\)"):
        back(blocks, tmp_path / "back")
    shutil.rmtree(tray)
    shutil.copytree(blocks, tray)
    with pytest.raises(EpisodeError, match=r"back\.part was begun with other options \(meta \w+\); remove it"):
        back(tray, tmp_path / "back")


def test_a_conversion_goes_on_with_the_same_episodes_only(tmp_path: Path) -> None:
    """Episodes of other folders, and others since recorded in the same place, often have the same names."""
    for folder in ("tray", "blocks"):
        record(tmp_path / folder, "episode_0", instruction=folder)
        record(tmp_path / folder, "episode_1", instruction=folder)
    unfinished = convert(tmp_path / "tray", tmp_path / "set", ConvertConfig(), workers=1)
    next(unfinished)
    unfinished.close()
    with pytest.raises(EpisodeError, match=rf"set\.part was begun with other options \(root {tmp_path / 'tray'}\)"):
        run(tmp_path / "blocks", tmp_path / "set")
    shutil.rmtree(tmp_path / "tray")
    (tmp_path / "blocks").rename(tmp_path / "tray")
    run(tmp_path / "tray", tmp_path / "set")
    assert [about.instruction for about in back(tmp_path / "set", tmp_path / "back")] == ["blocks", "blocks"]


@pytest.mark.parametrize(
    ("limit", "place"),
    [
        (7_000, r"episodes/episode_0: .*File too large.*head\.mp4"),
        (9_500, "dataset: .*File too large"),
        (20_000, r"dataset: .*File too large.*head.*\.mp4"),
        (30_000, "dataset: .*File too large"),
    ],
    ids=["video of an episode", "table", "joined video", "list of episodes"],
)
def test_a_full_disk_stops_a_conversion_that_then_goes_on(tmp_path: Path, limit: int, place: str) -> None:
    for number in range(3):
        record(tmp_path / "in", f"episode_{number}", frames=60)
    with full_disk(limit), pytest.raises(DiskError, match=rf"cannot write .*set\.part/{place}.*; free some"):
        run(tmp_path / "in", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert all(report.accepted for report in run(tmp_path / "in", tmp_path / "set"))


def test_a_full_disk_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "in", "episode_0", frames=60)
    record(tmp_path / "in", "episode_1", frames=60)
    with full_disk(7_000):
        assert cli.main(["convert", str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "2"]) == 2
    assert "imagewam: cannot write" in capsys.readouterr().err
    run(tmp_path / "in", tmp_path / "set")
    with full_disk(300_000):
        assert cli.main(["convert", str(tmp_path / "set"), str(tmp_path / "back")]) == 2
    assert "File too large; free some space" in capsys.readouterr().err
    assert not (tmp_path / "back").exists() and len(back(tmp_path / "set", tmp_path / "back")) == 2


def test_damaged_tables_and_lists_are_named(tmp_path: Path) -> None:
    root = data_set(tmp_path, 1)
    path = root / "data" / "chunk-000" / "file-000.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(EpisodeError, match=r"file-000\.parquet cannot be read: .*; fetch the data set again"):
        back(root, tmp_path / "back")
    (root / "meta" / "info.json").write_text((root / "meta" / "info.json").read_text().replace("v3.0", "v2.1"))
    with pytest.raises(EpisodeError, match=r"episodes\.jsonl cannot be read: .*; fetch the data set again"):
        back(root, tmp_path / "back")
    (root / "meta" / "info.json").write_text((root / "meta" / "info.json").read_text().replace("v2.1", "v3.0"))
    shutil.rmtree(root / "meta" / "episodes")
    with pytest.raises(EpisodeError, match="set lists no episodes in its meta/; fetch the data set again"):
        back(root, tmp_path / "back")
