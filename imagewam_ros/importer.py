# SPDX-License-Identifier: Apache-2.0
"""`imagewam import`: an official ImageWAM checkpoint, or the weights of an image editor, to our checkpoint directory.

The source is a folder with model.pt, dataset_stats.json and config.yaml, or a Hub id with a
pinned revision. What none of them says (robot, period, meaning of the first row, order of quaternions) is
an option, and nothing is guessed. With --backbone it is a published image editor, and the directory one to
train from (`model.from_backbone`). Memory holds one tensor at a time.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from imagewam_ros.core.contract import Contract, statistics_hash
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.core.spaces import names
from imagewam_ros.model import factory, hub, layouts, official
from imagewam_ros.model.checkpoint import SCHEMA, whole_directory
from imagewam_ros.model.from_backbone import BACKBONES, HORIZON, BaseOptions, find_backbone, write_base
from imagewam_ros.model.official_config import OfficialFacts, only_embodiment, padded_dims, read_facts, read_statistics
from imagewam_ros.model.official_contract import ImportOptions, check_sizes, contract_of
from imagewam_ros.model.official_shapes import config_of, variant_of
from imagewam_ros.model.official_vectors import STEP_M, STEP_RAD, Driving
from imagewam_ros.model.published import FILES, OVIS_FILES, copy_encoders
from imagewam_ros.model.safetensors_stream import write

OF_POLICIES = (
    "arm",
    "rotation",
    "frame",
    "tool",
    "gripper",
    "robot_gripper",
    "embodiment",
    "raw_action_dim",
    "lora_alpha",
)
"""Options that say what the numbers of trained weights are."""


def import_checkpoint(source: Path, out: Path, options: ImportOptions) -> Contract:
    """Write our directory and return its contract. Raises CheckpointError or ConfigError; then `out` is not there."""
    if out.exists():
        raise CheckpointError(f"{out} exists already; choose another directory")
    facts = _facts(source, options)
    path = source / "model.pt"
    state = official.network_state(official.read_official(path), path, facts.lora_alpha)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    variant, network = variant_of(shapes), config_of(shapes)
    embodiment = options.embodiment or only_embodiment(source / "dataset_stats.json")
    drop = padded_dims(network.action_dim, facts, source / "config.yaml", embodiment)
    network = dataclasses.replace(network, padded_dims=drop)
    text = factory.variant(variant).text_spec()
    if variant == "omnigen2":
        packs = bool(facts.pack_after_text)
        network = dataclasses.replace(network, pack_after_text=packs)
        text = dataclasses.replace(text, keep_pad=not packs)  # the joint sequence has a pad row in proprio's place
    spec = factory.ModelSpec(variant, network, text, prefix_at_zero=False)
    state = official.audited(state, factory.build_network(spec, "meta"), path)
    statistics = read_statistics(source / "dataset_stats.json", embodiment, drop)
    plain = {name: values.to_dict() for name, values in statistics.items()}
    numbers = {"action": network.action_dim - len(drop), "state": network.proprio_dim - len(drop)}
    check_sizes(numbers, statistics, source / "dataset_stats.json")
    contract = contract_of(variant, numbers, statistics, facts, options, source / "config.yaml")
    contract = dataclasses.replace(contract, statistics_hash=statistics_hash(plain))
    with whole_directory(out) as part:
        tensors = {name: official.finite(name, tensor, path) for name, tensor in state.items()}
        write(part / "model.safetensors", tensors)
        write_json(part / "stats.json", plain)
        if options.encoders is not None:
            copy_encoders(spec, options.encoders, part)
        write_json(part / "config.json", {"schema": SCHEMA, "contract": contract.to_dict(), "model": spec.to_dict()})
    return contract


def _source(words: str, backbone: str | None) -> Path:
    """What is named, or the Hub's copy of `owner/name@revision`. Raises ConfigError and CheckpointError."""
    path = Path(words)
    if path.is_dir() or (backbone and path.is_file()):
        return path
    if "@" not in words:
        raise ConfigError(f"no folder {words}; name one, or owner/name@revision")
    if backbone is None:
        return hub.download(words)
    files = OVIS_FILES if find_backbone(backbone).variant == "ovis_u1" else FILES
    return hub.download(words, files, needed=())


def _facts(source: Path, options: ImportOptions) -> OfficialFacts:
    """What config.yaml says, completed by the options. Raises CheckpointError where something is still open."""
    path = source / "config.yaml"
    facts = read_facts(path)
    names = ("normalisation", "horizon", "raw_action_dim", "lora_alpha")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if "raw_action_dim" in given:
        given["action_dim"] = None
    facts = dataclasses.replace(facts, **given)
    missing = [name for name in ("normalisation", "horizon") if getattr(facts, name) is None]
    if missing:
        raise CheckpointError(f"{path} does not say {' and '.join(missing)}; say it with --{' --'.join(missing)}")
    return facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", help="folder with model.pt, dataset_stats.json, config.yaml, or owner/name@revision")
    parser.add_argument("out", type=Path, help="new checkpoint directory")
    parser.add_argument(
        "--backbone",
        help="source is a published image editor, a checkpoint to train from is made of it for --robot and --layout: "
        f"{', '.join(BACKBONES)}, or a YAML of its numbers (variant, network, text)",
    )
    parser.add_argument(
        "--expert-as-authors",
        action="store_true",
        help="with --backbone: resize fused projections for the action expert as one, not part by part",
    )
    parser.add_argument(
        "--layout", help=f"camera mosaic, where config.yaml does not say it: {', '.join(layouts.LAYOUTS)}"
    )
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
    parser.add_argument("--arm", choices=("left", "right"), help="arm that a checkpoint of one arm drives")
    parser.add_argument("--rotation", choices=("xyzw", "wxyz", "none"), help="order of quaternions; none: 7 joints")
    parser.add_argument("--frame", default="", help="URDF frame that poses are given in, the root if not said")
    parser.add_argument("--tool", default="", help="URDF frame that poses are of, the arm's tool frame if not said")
    for option, words in (("--gripper", "the data says"), ("--robot-gripper", "the robot says, in its unit,")):
        said = f"what {words} of a closed and an open gripper"
        parser.add_argument(option, type=float, nargs=2, metavar=("CLOSED", "OPENED"), help=said)
    parser.add_argument("--step-m", type=float, default=STEP_M, help="metres of a step of 1 (LIBERO)")
    parser.add_argument("--step-rad", type=float, default=STEP_RAD, help="radians of a step of 1 (LIBERO)")
    parser.add_argument(
        "--encoders", type=Path, help="published folder whose autoencoder, text encoder and tokenizer to copy"
    )
    parser.add_argument("--embodiment", help="name, where statistics are per embodiment")
    parser.add_argument(
        "--normalisation", choices=("zscore", "minmax", "quantile"), help="where config.yaml does not say it"
    )
    parser.add_argument("--horizon", type=int, help="rows of a chunk, where config.yaml does not say it")
    parser.add_argument("--raw-action-dim", type=int, choices=(14, 16), help="joints behind 16 action dims")
    parser.add_argument("--lora-alpha", type=float, help="alpha of the LoRA adapters in the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        source = _source(args.source, args.backbone)
        contract = _base(source, args) if args.backbone else _policy(source, args)
    except (CheckpointError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    print(_said(contract, source, args))
    return 0


def _base(source: Path, args: argparse.Namespace) -> Contract:
    """Make a checkpoint to train from. Raises ConfigError for options that it lacks or has no use for."""
    idle = [name for name in OF_POLICIES if getattr(args, name) not in (None, "")]
    if idle:
        raise ConfigError(
            f"--{' --'.join(idle).replace('_', '-')} say what trained weights mean; leave out with --backbone"
        )
    if args.robot is None or args.layout is None:
        raise ConfigError("--backbone needs the --robot that is to learn and the --layout of its cameras")
    options = BaseOptions(
        layout=args.layout,
        period_ns=round(args.period_ms * 1e6),
        first_row_offset_periods=args.first_row_offset,
        normalisation=args.normalisation or "zscore",
        horizon=args.horizon or HORIZON,
        encoders=args.encoders,
        authors_way=args.expert_as_authors,
    )
    return write_base(source, args.out, find_backbone(args.backbone), load_embodiment(args.robot), options)


def _policy(source: Path, args: argparse.Namespace) -> Contract:
    """Import a trained checkpoint."""
    if args.expert_as_authors:
        raise ConfigError("--expert-as-authors is for --backbone; the expert of a checkpoint is trained")
    driving = Driving(
        arm=args.arm,
        rotation=args.rotation,
        frame=args.frame,
        tool=args.tool,
        gripper=tuple(args.gripper) if args.gripper else None,
        robot_gripper=tuple(args.robot_gripper) if args.robot_gripper else None,
        step_m=args.step_m,
        step_rad=args.step_rad,
    )
    options = ImportOptions(
        layout=args.layout,
        period_ns=round(args.period_ms * 1e6),
        first_row_offset_periods=args.first_row_offset,
        robot=args.robot,
        driving=driving,
        encoders=args.encoders,
        embodiment=args.embodiment,
        normalisation=args.normalisation,
        horizon=args.horizon,
        raw_action_dim=args.raw_action_dim,
        lora_alpha=args.lora_alpha,
    )
    return import_checkpoint(source, args.out, options)


def _said(contract: Contract, source: Path, args: argparse.Namespace) -> str:
    """What the user should know of the new directory."""
    dims = names(contract.action) or contract.joint_names
    lines = [f"{args.out}: {contract.variant}, {len(dims)} action dims, contract {contract.hash}"]
    lines += [f"action: {', '.join(dims)}"]
    if contract.state:
        lines += [f"state: {', '.join(names(contract.state))}"]
    lines += [f"licence of the weights: {hub.licence(args.out)}"]
    stated = hub.stated_licence(source)
    lines += [f"licence that their page states: {stated}"] if stated else []
    if args.robot is None:
        lines += ["no robot was named, so this directory drives none; import with --robot for that"]
    if args.backbone:
        lines += [f"never trained, so no robot runs it; go on with imagewam train --preset NAME --base {args.out}"]
    elif args.encoders is None:
        lines += [f"put autoencoder/, text_encoder/ and tokenizer/ into {args.out} before loading it (--encoders does)"]
    return "\n".join(lines)
