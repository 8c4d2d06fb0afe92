# SPDX-License-Identifier: Apache-2.0
"""Contracts and robots survive YAML and JSON; joint messages in any pieces make one state."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.config import build, read_yaml
from imagewam_ros.core.contract import TIME_GRIDS, Contract, Denoising, Mosaic, Tile, statistics_hash
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import ActionChunk, Command, JointState, Observation, Source
from imagewam_ros.core.stats import MODES

ROBOTS = sorted(path.stem for path in (share_dir() / "config" / "robots").glob("*.yaml"))
NAMES = st.lists(st.text("abcd_", min_size=1, max_size=5), min_size=1, max_size=5, unique=True).map(tuple)


@st.composite
def contracts(draw):
    names = draw(NAMES)
    side = 16 * draw(st.integers(1, 4))
    cameras = draw(NAMES)
    tiles = tuple(Tile(name, 0, i * side, side, side) for i, name in enumerate(cameras))
    return Contract(
        variant=draw(st.sampled_from(["flux2", "omnigen2"])),
        joint_names=names,
        joint_units=("rad",) * len(names),
        relative=tuple(draw(st.booleans()) for _ in names),
        mosaic=Mosaic(side, side * len(cameras), tiles),
        period_ns=draw(st.integers(1, 10**9)),
        horizon=draw(st.integers(1, 64)),
        first_row_offset_periods=draw(st.floats(0, 2)),
        text_length=draw(st.integers(1, 512)),
        normalisation=draw(st.sampled_from(MODES)),
        prompt=draw(st.text("ab: ", max_size=10)) + "{task}",
        denoising=Denoising(draw(st.integers(1, 50)), draw(st.floats(0.1, 10)), draw(st.sampled_from(TIME_GRIDS))),
    )  # fmt: skip


@given(contracts())
def test_contracts_survive_their_file(contract):
    again = build(Contract, json.loads(json.dumps(contract.to_dict())), "config.json")
    assert again == contract and again.hash == contract.hash and len(contract.hash) == 16


@given(contracts(), contracts())
def test_hashes_tell_contracts_apart(first, second):
    assert (first.hash == second.hash) == (first.to_dict() == second.to_dict())


@given(contracts(), st.data())
def test_any_key_that_does_not_exist_is_named(contract, data):
    plain = contract.to_dict()
    key = data.draw(st.sampled_from(sorted(plain)))
    plain[key + "_x"] = plain.pop(key)
    with pytest.raises(ConfigError, match=rf"^here: unknown key '{key}_x'; did you mean"):
        build(Contract, plain, "here")


@given(st.dictionaries(st.text("abc", max_size=3), st.lists(st.floats(-9, 9), max_size=3), max_size=4))
def test_statistics_hash_depends_on_content_alone(data):
    shuffled = dict(reversed(data.items()))
    assert statistics_hash(data) == statistics_hash(json.loads(json.dumps(shuffled)))


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_survive_yaml(name, tmp_path):
    robot = load_embodiment(name)
    plain = json.loads(json.dumps(dataclasses.asdict(robot)))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(plain))
    assert build(Embodiment, read_yaml(tmp_path / "r.yaml"), "r.yaml") == robot
    assert load_embodiment(str(tmp_path / "r.yaml")) == robot


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_say_the_same_in_every_order(name):
    robot = load_embodiment(name)
    assert robot.joint_names == tuple(joint.name for joint in robot.joints)
    sides = [robot.arm_slice(arm.side) for arm in robot.arms]
    assert [i for part in sides for i in range(part.start, part.stop)] == list(range(len(robot.joints)))
    for arm, part in zip(robot.arms, sides, strict=True):
        assert robot.joint_names[part] == tuple(joint.name for joint in arm.members)
        assert robot.gripper_mask[part].tolist() == [False] * len(arm.joints) + [True]
    assert (robot.limits.lower < robot.limits.upper).all()
    assert all(robot.camera(camera.name) is camera for camera in robot.cameras)
    assert robot.period_ns * robot.control_rate_hz == pytest.approx(1e9)


ROBOT = load_embodiment("sim_cell")


@given(st.lists(st.sets(st.integers(0, 13), min_size=1), min_size=1, max_size=6), st.integers(0, 99))
def test_pieces_of_joint_states_make_the_newest_of_each(pieces, seed):
    merge, rng = JointMerge.of(ROBOT), np.random.default_rng(seed)
    known: dict[int, tuple[int, float]] = {}
    for stamp, piece in enumerate(pieces, start=1):
        index = sorted(piece)
        values = rng.normal(size=len(index))
        merge.add(stamp, [ROBOT.joint_names[i] for i in index], values, np.zeros(0))
        known |= {i: (stamp, value) for i, value in zip(index, values.tolist(), strict=True)}
    assert merge.complete == (len(known) == 14)
    if merge.complete:
        state = merge.state
        assert state.position.tolist() == [known[i][1] for i in range(14)]
        assert state.stamp_ns == min(stamp for stamp, _ in known.values())
        return
    missing = ", ".join(ROBOT.joint_names[i] for i in range(14) if i not in known)
    with pytest.raises(EmbodimentMismatch, match=f"joint_states lacks {missing}; found"):
        _ = merge.state


@given(st.permutations(range(14)))
def test_order_of_names_in_a_message_does_not_matter(order):
    plain, shuffled = JointMerge.of(ROBOT), JointMerge.of(ROBOT)
    values, rates = np.arange(14.0), -np.arange(14.0)
    plain.add(1, ROBOT.joint_names, values, rates)
    shuffled.add(1, [ROBOT.joint_names[i] for i in order], values[list(order)], rates[list(order)])
    assert np.array_equal(plain.state.position, shuffled.state.position)
    assert np.array_equal(plain.state.velocity, shuffled.state.velocity)


@given(st.integers(0, 2**62), st.integers(1, 10**9), st.integers(0, 4), st.integers(0, 60))
def test_rows_are_due_one_period_apart(stamp, period, halves, row):
    chunk = ActionChunk(stamp, period, ("a",), np.zeros((1, 1)), first_row_offset_periods=halves / 2)
    assert abs(chunk.due_ns(row + 1) - chunk.due_ns(row) - period) <= 1
    assert abs(chunk.due_ns(0) - stamp - halves * period / 2) <= 1


def test_sources_rank_people_above_policies():
    assert Source.POLICY < Source.REPLAY < Source.TELEOP < Source.TAKEOVER


def test_values_of_every_kind_are_frozen_copies():
    array = np.zeros(2)
    state = JointState(0, ("a", "b"), array, array)
    command = Command(0, 0, 1, ("a", "b"), array, array, array)
    observation = Observation(0, {"head": np.zeros((1, 1, 3), np.uint8)}, array, "go")
    array[:] = 7
    for held in (state.position, state.velocity, command.position, command.acceleration, observation.positions):
        assert not held.any() and not held.flags.writeable
    with pytest.raises(TypeError, match="does not support item assignment"):
        observation.images["head"] = array  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.stamp_ns = 1  # type: ignore[misc]
