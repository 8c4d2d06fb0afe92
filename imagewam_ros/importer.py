# SPDX-License-Identifier: Apache-2.0
"""`imagewam import`: an official ImageWAM checkpoint to our checkpoint directory.

The source is a folder with model.pt, dataset_stats.json and config.yaml, or a Hub id with a
pinned revision. What none of them says (robot, layout, period, meaning of the first row) is an
option, and nothing is guessed. Memory holds one tensor at a time.
"""

import argparse
import dataclasses
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from imagewam_ros.core.contract import Contract, Denoising, statistics_hash
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.model import factory, layouts, official
from imagewam_ros.model.checkpoint import SCHEMA, write_json
from imagewam_ros.model.official_config import OfficialFacts, padded_dims, read_facts, read_statistics
from imagewam_ros.model.official_shapes import config_of, variant_of
from imagewam_ros.model.safetensors_stream import lazily, write

TEXT_LENGTH = 128
"""Tokens of a prompt in the released runs; longer prompts are cut."""

POSE = ("x", "y", "z", "q0", "q1", "q2", "q3", "gripper")
"""One arm of the 16 end-effector dims; the quaternion's order is the dataset's."""

LICENCES = {
    ("flux2", 3072): "FLUX.2-klein-base-4B: Apache-2.0",
    ("flux2", 4096): "FLUX.2-klein-base-9B: FLUX non-commercial licence, not for commercial use",
    ("omnigen2", 2520): "OmniGen2: Apache-2.0",
    ("ovis_u1", 1536): "Ovis-U1: Apache-2.0",
}
"""Licence of the backbone behind the weights, by variant and width."""

PINNED = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True)
class ImportOptions:
    """What the checkpoint's own files leave open."""

    layout: str
    period_ns: int
    first_row_offset_periods: float
    robot: str | None = None
    encoders: Path | None = None
    embodiment: str | None = None
    normalisation: str | None = None
    horizon: int | None = None
    raw_action_dim: int | None = None
    lora_alpha: float | None = None


def import_checkpoint(source: Path, out: Path, options: ImportOptions) -> Contract:
    """Write our directory and return its contract. Raises CheckpointError or ConfigError; then `out` is not there."""
    if out.exists():
        raise CheckpointError(f"{out} exists already; choose another directory")
    facts = _facts(source, options)
    path = source / "model.pt"
    state = official.network_state(official.read_official(path), path, facts.lora_alpha)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    variant, network = variant_of(shapes), config_of(shapes)
    drop = padded_dims(network.action_dim, facts, source / "config.yaml")
    network = dataclasses.replace(network, padded_dims=drop)
    if variant == "omnigen2":
        network = dataclasses.replace(network, pack_after_text=bool(facts.pack_after_text))
    spec = factory.ModelSpec(variant, network, factory.variant(variant).text_spec(), prefix_at_zero=False)
    state = official.audited(state, factory.build_network(spec, "meta"), path)
    statistics = read_statistics(source / "dataset_stats.json", options.embodiment, drop)
    plain = {name: values.to_dict() for name, values in statistics.items()}
    contract = _contract(variant, network.action_dim - len(drop), facts, options)
    contract = dataclasses.replace(contract, statistics_hash=statistics_hash(plain))
    part = out.with_name(out.name + ".part")
    part.mkdir(parents=True)
    try:
        write(part / "model.safetensors", {name: lazily(tensor) for name, tensor in state.items()})
        write_json(part / "stats.json", plain)
        _copy_encoders(options.encoders, part)
        write_json(part / "config.json", {"schema": SCHEMA, "contract": contract.to_dict(), "model": spec.to_dict()})
    except BaseException:
        shutil.rmtree(part)
        raise
    part.rename(out)
    return contract


def licence(out: Path) -> str:
    """Licence of the weights in an imported directory."""
    model = json.loads((out / "config.json").read_text(encoding="utf8"))["model"]
    width = model["network"]["hidden"]
    return LICENCES.get((model["variant"], width), "not one of the released backbones: see the weights' origin")


def download(hub_id: str) -> Path:
    """Fetch model.pt, dataset_stats.json and config.yaml of `owner/name@revision`. Raises ConfigError."""
    name, _, revision = hub_id.partition("@")
    if not PINNED.match(revision):
        raise ConfigError(f"{hub_id!r} names no pinned revision; add @ and the 40 hex digits of a commit")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError("a Hub id needs huggingface_hub; pip install huggingface_hub") from None
    files = ["model.pt", "dataset_stats.json", "config.yaml"]
    return Path(snapshot_download(name, revision=revision, allow_patterns=files))


def _facts(source: Path, options: ImportOptions) -> OfficialFacts:
    """What config.yaml says, completed by the options. Raises CheckpointError where something is still open."""
    path = source / "config.yaml"
    facts = read_facts(path)
    names = ("normalisation", "horizon", "raw_action_dim", "lora_alpha")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    facts = dataclasses.replace(facts, **given)
    if facts.relative:
        raise CheckpointError(
            f"{path} trains relative actions, whose reference it does not say; this import takes absolute ones"
        )
    missing = [name for name in ("normalisation", "horizon") if getattr(facts, name) is None]
    if missing:
        raise CheckpointError(f"{path} does not say {' and '.join(missing)}; say it with --{' --'.join(missing)}")
    return facts


def _contract(variant: str, dims: int, facts: OfficialFacts, options: ImportOptions) -> Contract:
    robot = load_embodiment(options.robot) if options.robot else None
    names, units = _joints(dims, robot)
    cameras = robot.camera_names if robot else ("head", "left_wrist", "right_wrist")
    places = len(layouts.LAYOUTS[options.layout][2]) if options.layout in layouts.LAYOUTS else len(cameras)
    assert facts.normalisation is not None and facts.horizon is not None
    return Contract(
        variant=variant,
        joint_names=names,
        joint_units=units,
        relative=(False,) * dims,
        mosaic=layouts.mosaic(options.layout, cameras[:places]),
        period_ns=options.period_ns,
        horizon=facts.horizon,
        first_row_offset_periods=options.first_row_offset_periods,
        text_length=facts.text_length or TEXT_LENGTH,
        normalisation=facts.normalisation,
        denoising=Denoising(time_grid="bfloat16"),
    )


def _joints(dims: int, robot: Embodiment | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the action dims. Raises ConfigError when the robot has another number of joints."""
    if robot is not None:
        if len(robot.joints) != dims:
            raise ConfigError(f"the checkpoint has {dims} action dims, robot {robot.name!r} {len(robot.joints)} joints")
        return robot.joint_names, tuple(joint.unit for joint in robot.joints)
    if dims == 2 * len(POSE):
        names = tuple(f"{side}_{part}" for side in ("left", "right") for part in POSE)
        return names, tuple("m" if part in ("x", "y", "z", "gripper") else "1" for part in POSE) * 2
    return tuple(f"action_{i}" for i in range(dims)), ("1",) * dims


def _copy_encoders(encoders: Path | None, out: Path) -> None:
    """Copy the frozen parts of a diffusers pipeline folder. Raises CheckpointError."""
    if encoders is None:
        return
    for theirs, ours in (("vae", "autoencoder"), ("text_encoder", "text_encoder"), ("tokenizer", "tokenizer")):
        if not (encoders / theirs).is_dir():
            raise CheckpointError(
                f"no {theirs}/ in {encoders}; expected a pipeline folder with vae, text_encoder, tokenizer"
            )
        shutil.copytree(encoders / theirs, out / ours)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", help="folder with model.pt, dataset_stats.json, config.yaml, or owner/name@revision")
    parser.add_argument("out", type=Path, help="new checkpoint directory")
    parser.add_argument("--layout", required=True, help=f"camera mosaic: {', '.join(layouts.LAYOUTS)}")
    parser.add_argument(
        "--period-ms", type=float, required=True, help="time between two action rows, from the data set"
    )
    parser.add_argument(
        "--first-row-offset",
        type=float,
        required=True,
        help="1: row 0 is the target one period later; 0: the command now",
    )
    parser.add_argument("--robot", help="robot YAML whose joints and cameras the checkpoint drives")
    parser.add_argument("--encoders", type=Path, help="pipeline folder with vae/, text_encoder/ and tokenizer/ to copy")
    parser.add_argument("--embodiment", help="name, where statistics are per embodiment")
    parser.add_argument(
        "--normalisation", choices=("zscore", "minmax", "quantile"), help="where config.yaml does not say it"
    )
    parser.add_argument("--horizon", type=int, help="rows of a chunk, where config.yaml does not say it")
    parser.add_argument("--raw-action-dim", type=int, choices=(14, 16), help="joints behind 16 action dims")
    parser.add_argument("--lora-alpha", type=float, help="alpha of the LoRA adapters in the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    options = ImportOptions(
        layout=args.layout,
        period_ns=round(args.period_ms * 1e6),
        first_row_offset_periods=args.first_row_offset,
        robot=args.robot,
        encoders=args.encoders,
        embodiment=args.embodiment,
        normalisation=args.normalisation,
        horizon=args.horizon,
        raw_action_dim=args.raw_action_dim,
        lora_alpha=args.lora_alpha,
    )
    try:
        source = Path(args.source) if Path(args.source).is_dir() else download(args.source)
        contract = import_checkpoint(source, args.out, options)
    except (CheckpointError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {contract.variant}, {len(contract.joint_names)} action dims, contract {contract.hash}")
    print(f"licence of the weights: {licence(args.out)}")
    if args.encoders is None:
        print(
            f"put autoencoder/, text_encoder/ and tokenizer/ into {args.out} before loading it (--encoders copies them)"
        )
    return 0
