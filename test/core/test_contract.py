# SPDX-License-Identifier: Apache-2.0
"""A contract fits one kind of robot, survives its file, and its hash tells contracts apart."""

import dataclasses
import json

import pytest

from imagewam_ros.core.config import build
from imagewam_ros.core.contract import Contract, Denoising, Mosaic, Tile, statistics_hash
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch


def test_file_round_trip_keeps_the_hash(contract: Contract) -> None:
    again = build(Contract, json.loads(json.dumps(contract.to_dict())), "config.json")
    assert again == contract
    assert again.hash == contract.hash


@pytest.mark.parametrize(
    "change",
    [{"period_ns": 1}, {"horizon": 8}, {"first_row_offset_periods": 0.0}, {"statistics_hash": "x"}, {"text_length": 9}],
)
def test_hash_changes_with_every_promise(contract: Contract, change: dict[str, object]) -> None:
    assert dataclasses.replace(contract, **change).hash != contract.hash  # type: ignore[arg-type]


def test_statistics_hash_ignores_key_order() -> None:
    assert statistics_hash({"a": 1, "b": [2.0]}) == statistics_hash({"b": [2.0], "a": 1})
    assert statistics_hash({"a": 1}) != statistics_hash({"a": 2})


def test_accepts_its_robot(contract: Contract, robot: Embodiment) -> None:
    contract.check(robot)


def test_names_the_swapped_joints(contract: Contract, robot: Embodiment) -> None:
    names = list(contract.joint_names)
    names[0], names[1] = names[1], names[0]
    with pytest.raises(EmbodimentMismatch, match=r"joint_names: \[0\] 'left_shoulder' against 'left_waist'"):
        dataclasses.replace(contract, joint_names=tuple(names)).check(robot)


def test_names_missing_joints_and_cameras(contract: Contract, robot: Embodiment) -> None:
    fewer = dataclasses.replace(robot, cameras=robot.cameras[:2])
    with pytest.raises(EmbodimentMismatch, match="cameras: checkpoint has 3, robot 2.*only checkpoint: .'right_wrist'"):
        contract.check(fewer)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"relative": (True,)}, "differ in length"),
        ({"horizon": 0}, "must be positive"),
        ({"prompt": "go"}, "prompt must hold {task}"),
        ({"normalisation": "z"}, "normalisation must be one of zscore, minmax, quantile"),
    ],
)
def test_refuses_contradictions(contract: Contract, change: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(contract, **change)  # type: ignore[arg-type]


def test_refuses_bad_mosaics_and_schedules() -> None:
    with pytest.raises(ConfigError, match="multiple of 16 in both sizes, found 60x64"):
        Mosaic(60, 64, ())
    with pytest.raises(ConfigError, match="tile of camera 'head' leaves the mosaic"):
        Mosaic(64, 64, (Tile("head", 0, 16, 64, 64),))
    with pytest.raises(ConfigError, match="denoising needs steps >= 1"):
        Denoising(steps=0)
    with pytest.raises(ConfigError, match="time_grid must be one of float32, bfloat16"):
        Denoising(time_grid="fp8")
