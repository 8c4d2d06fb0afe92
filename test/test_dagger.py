# SPDX-License-Identifier: Apache-2.0
"""One small round of DAgger from the policy to the paired evaluation, and what is refused."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from small_checkpoint import small_checkpoint

from imagewam_ros import dagger
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.stats import Statistics
from imagewam_ros.data.episode import find_episodes, read_provenance
from imagewam_ros.record import record_episode


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    dagger.add_arguments(parser)
    return dagger.run(parser.parse_args(words))


def wide() -> dict[str, Statistics]:
    """Statistics of data that hold what the expert does."""
    robot, rng = load_embodiment("sim_cell"), np.random.default_rng(0)
    action = rng.normal(size=(200, 14)) * np.where(robot.gripper_mask, 0.01, 0.1)
    action += np.where(robot.gripper_mask, 0.02, 0.0)
    return {"state": Statistics.of(rng.normal(size=(200, 14))), "action": Statistics.of(action)}


@pytest.mark.slow
def test_a_round_corrects_trains_and_compares(tmp_path: Path, capsys) -> None:
    policy = small_checkpoint(tmp_path / "policy", statistics=wide())
    for seed in (1_000_000, 1_000_001):
        record_episode(seed, tmp_path / "shown", "block_lift", "sim_cell")
    words = ["--policy", str(policy), "--task", "block_lift", "--episodes", "3", "--workers", "1", "--json"]
    words += ["--out", str(tmp_path / "round")]
    assert run(*words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    count = told["tasks"]["block_lift"]
    assert count["runs"] == 3 and count["done by the policy alone"] == 0, "a policy of noise needs help"
    assert count["corrected"] >= 1
    episodes = find_episodes(tmp_path / "round" / "corrections" / "block_lift")
    about = read_provenance(episodes[0])
    assert (
        about.interventions
        and about.label == "success"
        and about.seed - 100_000_000 in range(3)
        and about.contract_hash
    )
    with pytest.raises(ConfigError, match=r"round is a round with deviation_m 0.06, asked is 0.1; choose another"):
        run(*words, "--deviation", "0.1")
    code = run(*words, "--data", str(tmp_path / "shown"), "--steps", "2", "--evaluate", "1")
    said = capsys.readouterr().out
    assert code in (0, 1) and "imagewam train --preset tiny --base" in said, "runs that are done are not done again"
    report = json.loads((tmp_path / "round" / "evaluation" / "report.json").read_text())
    assert report["tasks"][0]["paired"]["against"] == str(policy)
    trained = json.loads((tmp_path / "round" / "run" / "report.json").read_text())
    assert trained["episodes"] == 2 + count["corrected"] and trained["steps"] == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--seed", "1000"), "seed 1000 belongs to evaluation; corrections use seeds from 1000000 up"),
        (("--episodes", "0"), "--episodes must be positive, found 0"),
        (("--task", "tray_lit"), "unknown task 'tray_lit'; did you mean 'tray_lift'"),
    ],
)
def test_what_is_asked_wrongly_is_named(tmp_path: Path, words, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        run("--policy", "tiny", "--out", str(tmp_path), *words)
