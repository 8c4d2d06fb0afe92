# SPDX-License-Identifier: Apache-2.0
"""Wherever a person types a name: an unknown one is answered with the nearest that exists."""

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros import bench_cost, evaluate, graph
from imagewam_ros.bench_reference import sizes
from imagewam_ros.control.timeline import MergeConfig
from imagewam_ros.core.config import build
from imagewam_ros.core.contract import Mosaic, Tile
from imagewam_ros.core.embodiment import Gripper, Joint, load_embodiment
from imagewam_ros.core.errors import ConfigError, DeviceError, EpisodeError, ImageWamError, StaleObservation
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.sync import SyncConfig, Synchroniser
from imagewam_ros.data.bag_label import label_episode
from imagewam_ros.data.bag_recorder import RecordingConfig
from imagewam_ros.data.episode import EpisodeWriter, Provenance
from imagewam_ros.data.lerobot_layout import LeRobotFormat
from imagewam_ros.evaluation.drivers import make_driver
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import expand
from imagewam_ros.model import factory, layouts
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.sim.tasks import find_task
from imagewam_ros.teleop.devices import DeviceConfig, open_device
from imagewam_ros.training.presets import find_preset

NOWHERE = Path("nowhere")


def writer(folder: Path) -> EpisodeWriter:
    return EpisodeWriter(folder / "e", Provenance("pair", "wave", ("a",), (("head", "head/image"),), 50_000_000, 1.0))


ASKED: list[tuple[str, str, type[ImageWamError], Callable[[], object]]] = [
    ("robot 'sim_cel'", "sim_cell", ConfigError, lambda: load_embodiment("sim_cel")),
    ("camera 'haed'", "head", ConfigError, lambda: load_embodiment("sim_cell").camera("haed")),
    ("arm 'lefty'", "left", ConfigError, lambda: load_embodiment("sim_cell").arm_slice("lefty")),
    ("unit 'rads'", "rad", ConfigError, lambda: Joint("a", 0, 1, 1, 1, 1, unit="rads")),
    ("open 'uper'", "upper", ConfigError, lambda: Gripper("a", 0, 1, 1, 1, 1, open="uper")),
    ("key 'max_ages_s'", "max_age_s", ConfigError, lambda: build(SyncConfig, {"max_ages_s": 1.0}, "x.yaml")),
    ("checkpoint 'tinny'", "tiny", ImageWamError, lambda: find_checkpoint("tinny")),
    (
        "camera 'haed'",
        "head",
        StaleObservation,
        lambda: Synchroniser({"head": "t"}, "j", SyncConfig()).add_image("haed", 0, None),
    ),
    ("label 'sucess'", "success", EpisodeError, lambda: label_episode(NOWHERE, "sucess")),
    ("compression 'zst'", "zstd", ConfigError, lambda: RecordingConfig(compression="zst")),
    ("image_format 'jpg'", "jpeg", ConfigError, lambda: RecordingConfig(image_format="jpg")),
    ("LeRobot version 'v3'", "v3.0", ConfigError, lambda: LeRobotFormat(20, "r", (), (), version="v3")),
    ("condition 'gray'", "grey", ConfigError, lambda: make_driver("gray", None)),
    ("task 'tray_lif'", "tray_lift", ConfigError, lambda: find_task("tray_lif")),
    ("preset 'tinny'", "tiny", ConfigError, lambda: find_preset("tinny")),
    ("preset 'sixt'", "sixth", ConfigError, lambda: sizes.build_weights("sixt", next(iter(sizes.LAYOUTS.values())))),
    ("variant 'flux'", "flux2", ImageWamError, lambda: factory.variant("flux")),
    ("layout 'libero'", "libero_224x448", ConfigError, lambda: layouts.mosaic("libero_224x4", ("a",))),
    ("device 'gamepat'", "gamepad", DeviceError, lambda: open_device("gamepat", DeviceConfig())),
    ("merge rule 'ensembel'", "ensemble", ConfigError, lambda: MergeConfig(rule="ensembel")),
    ("model 'flux2-4'", "flux2-4b", ConfigError, lambda: bench_cost.chunk_cost("flux2-4", "libero_224x448")),
    ("frame 'left_tool'", "left_tool0", ConfigError, lambda: chains().pose(np.zeros(14), "left_tool")),
    (
        "camera 'head'",
        "haed",
        ConfigError,
        lambda: mosaic_pixels({"haed": np.zeros((16, 16, 3), np.uint8)}, Mosaic(16, 16, (Tile("head", 0, 0, 16, 16),))),
    ),
]


def chains() -> Chains:
    return Chains(expand(), load_embodiment("sim_cell"))


@pytest.mark.parametrize(("asked", "nearest", "error", "ask"), ASKED, ids=[row[0] for row in ASKED])
def test_the_nearest_name_is_offered(
    asked: str, nearest: str, error: type[ImageWamError], ask: Callable[[], object]
) -> None:
    kind = asked.split(" '")[0]
    with pytest.raises(error) as caught:
        ask()
    text = str(caught.value)
    assert f"unknown {kind} '" in text and "known: " in text
    assert f"did you mean '{nearest}" in text, text


def test_a_name_that_resembles_nothing_is_answered_with_all() -> None:
    robots = sorted(path.stem for path in (Path(__file__).parents[1] / "config" / "robots").glob("*.yaml"))
    with pytest.raises(ConfigError, match=f"unknown robot 'zzz'; known: {', '.join(robots)}"):
        load_embodiment("zzz")


@pytest.mark.parametrize(("task", "known"), [("pour", "block_lift, hand_over, tray_lift")])
def test_unknown_task_lists_all(task: str, known: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown task '{task}'; known: {known}"):
        find_task(task)


def test_episodes_refuse_unknown_cameras_and_labels(tmp_path: Path) -> None:
    with writer(tmp_path) as episode:
        with pytest.raises(EpisodeError, match="unknown camera 'haed'; did you mean 'head'"):
            episode.image("haed", 0, np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(EpisodeError, match="unknown label 'succes'; did you mean 'success'"):
            episode.finish("succes")


@pytest.mark.parametrize("argument", [a for a in graph.ARGUMENTS if a.choices], ids=lambda a: a.name)
def test_every_choice_of_the_graph_is_read_and_others_are_not(argument: graph.Argument) -> None:
    for choice in argument.choices:
        assert argument.parse(choice) == choice
    with pytest.raises(ConfigError, match=f"unknown value of {argument.name} 'q7q7'; known: "):
        argument.parse("q7q7")


@pytest.mark.parametrize("argument", [a for a in graph.ARGUMENTS if not a.choices], ids=lambda a: a.name)
def test_every_default_of_the_graph_survives_being_typed(argument: graph.Argument) -> None:
    assert argument.parse(str(argument.default)) == argument.default


@pytest.mark.parametrize("argument", [a for a in graph.ARGUMENTS if type(a.default) in (int, float, bool)])
def test_numbers_and_flags_of_the_graph_are_checked(argument: graph.Argument) -> None:
    wanted = "true or false" if isinstance(argument.default, bool) else f"a {type(argument.default).__name__}"
    with pytest.raises(ConfigError, match=f"{argument.name} must be {wanted}, found 'soon'"):
        argument.parse("soon")


def test_unknown_mode_of_evaluation() -> None:
    parser = ArgumentParser()
    evaluate.add_arguments(parser)
    asked = Namespace(**{**vars(parser.parse_args([])), "mode": "proces"})
    with pytest.raises(ConfigError, match="unknown mode 'proces'; did you mean 'process'"):
        evaluate.run(asked)


def test_messages_of_frozen_configs_survive_replace() -> None:
    """dataclasses.replace checks again, so a refused value never gets in by the back door."""
    with pytest.raises(ConfigError, match="unknown merge rule 'x'"):
        dataclasses.replace(MergeConfig(), rule="x")
