# SPDX-License-Identifier: Apache-2.0
"""`imagewam dagger`: one round of corrections in the simulator, then training and a paired evaluation.

The policy runs, the scripted expert takes over where a rule says that it goes astray, and the corrections become
episodes under OUT/corrections. With --data training goes on from the policy on those demonstrations and the
corrections of all rounds, and both policies are evaluated on the same unseen seeds.
"""

import argparse
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from imagewam_ros import cli
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.data.episode import FIRST_SEED, EpisodeWriter, Provenance
from imagewam_ros.data.row_log import add_row, make_folder, read_rows
from imagewam_ros.data.workers import side_by_side
from imagewam_ros.record import episode_folder

if TYPE_CHECKING:
    from imagewam_ros.evaluation.correction import Corrected, Rule
    from imagewam_ros.evaluation.drivers import PolicyDriver
    from imagewam_ros.sim.cell import Cell

SEEDS = 100 * FIRST_SEED
"""First scene of the first round, apart from those of demonstrations."""
LOG = "outcomes.jsonl"
OPERATOR = "scripted expert, taking over from a policy"


class Outcome(NamedTuple):
    """What came of one watched run."""

    seed: int
    corrected: bool
    success: bool
    frames: int
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam dagger`."""
    from imagewam_ros.evaluation.correction import Rule

    rule = Rule()
    parser.add_argument("--policy", required=True, help="checkpoint: a name in models/ or a directory")
    parser.add_argument("--task", nargs="+", default=["tray_lift"], help="tasks of the simulated cell, or all")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--episodes", type=int, default=100, help="watched runs per task")
    parser.add_argument(
        "--seed", type=int, default=SEEDS, help=f"of the first run, from {FIRST_SEED} up; another one for each round"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the round; what it holds is kept")
    parser.add_argument("--deviation", type=float, default=rule.deviation_m, help="m between tool and expert's way")
    parser.add_argument("--patience", type=float, default=rule.patience_s, help="s that it may last")
    parser.add_argument("--late", type=float, default=rule.late_s, help="s after the expert would have been done")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--data", type=Path, nargs="+", default=(), help="train on these episodes and the corrections")
    parser.add_argument("--preset", default="tiny", help="of the training")
    parser.add_argument("--steps", type=int, default=1000, help="of the training, from the policy on")
    parser.add_argument("--evaluate", type=int, default=50, help="seeds of the paired evaluation, 0 for none")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Run the round as far as it was asked for. Returns 0, or what training or evaluation returned."""
    from imagewam_ros.evaluation.correction import Rule
    from imagewam_ros.sim.tasks import TASKS, find_task

    if arguments.seed < FIRST_SEED:
        raise ConfigError(
            f"seed {arguments.seed} belongs to evaluation; corrections use seeds from {FIRST_SEED} up, "
            "so that no policy is tested on what it was taught"
        )
    if arguments.episodes < 1:
        raise ConfigError(f"--episodes must be positive, found {arguments.episodes}")
    tasks = list(TASKS) if "all" in arguments.task else list(dict.fromkeys(arguments.task))
    for task in tasks:
        find_task(task)
    rule = Rule(arguments.deviation, arguments.patience, late_s=arguments.late)
    _hold_to(arguments, rule)
    counts = {task: _counted(list(correct_all(arguments, task, rule))) for task in tasks}
    for task, count in counts.items():
        print(f"{task}: {', '.join(f'{number} {name}' for name, number in count.items())}")
    if arguments.json:
        print(json.dumps({"policy": arguments.policy, "tasks": counts}), flush=True)
    if not arguments.data:
        return 0
    return _train_and_compare(arguments, tasks)


def _hold_to(arguments: argparse.Namespace, rule: "Rule") -> None:
    """Note what the round's outcomes are of. Raises ConfigError where the folder holds those of something else."""
    from imagewam_ros.evaluation.source import checkpoint_hash

    path, policy = arguments.out / "round.json", checkpoint_hash(find_checkpoint(arguments.policy))
    made = {"policy": policy, "robot": arguments.robot, **dataclasses.asdict(rule)}
    known = json.loads(path.read_text(encoding="utf8")) if path.exists() else made
    for name, wanted in made.items():
        if known[name] != wanted:
            raise ConfigError(
                f"{arguments.out} is a round with {name} {known[name]}, asked is {wanted}; choose another --out"
            )
    make_folder(arguments.out)
    write_json(path, made)


def correct_all(arguments: argparse.Namespace, task: str, rule: "Rule") -> Iterator[Outcome]:
    """Watch the runs of one task that are not done yet."""
    folder = arguments.out / "corrections" / task
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(folder)
    seeds = [seed for seed in range(arguments.seed, arguments.seed + arguments.episodes) if seed not in done]
    one = partial(correct, policy=arguments.policy, task=task, robot=arguments.robot, rule=rule, folder=folder)
    yield from done.values()
    outcomes = side_by_side(one, seeds, min(arguments.workers, len(seeds)))
    yield from _kept(tqdm(outcomes, total=len(seeds), unit="run", desc=task), folder)


def correct(seed: int, policy: str, task: str, robot: str, rule: "Rule", folder: Path) -> Outcome:
    """Watch one run and write it if the expert had to help and could."""
    import torch

    from imagewam_ros.evaluation.correction import run_corrected
    from imagewam_ros.evaluation.drivers import PolicyDriver
    from imagewam_ros.evaluation.source import Source
    from imagewam_ros.evaluation.trial import TrialConfig
    from imagewam_ros.policy import Policy
    from imagewam_ros.sim.cell import Cell

    torch.set_num_threads(1)
    key = (policy, task, robot)
    if key not in _open:
        cell = Cell(load_embodiment(robot), task)
        loaded = Policy.load(find_checkpoint(policy), cell.embodiment)
        driver = PolicyDriver(Source(loaded, loaded.contract.camera_names))
        _open[key] = cell, driver, loaded.contract.hash
    cell, driver, contract_hash = _open[key]
    found = run_corrected(cell, driver, seed, TrialConfig(), rule)
    if found.interventions and found.success:
        write_corrections(episode_folder(folder, seed), cell, found, task, contract_hash)
    return Outcome(seed, bool(found.interventions), found.success, len(found.states), found.reason)


def write_corrections(folder: Path, cell: "Cell", found: "Corrected", task: str, contract_hash: str) -> None:
    """Write a watched run as an episode whose interventions say what to learn from."""
    from imagewam_ros.sim.expert import PERIOD_NS

    if folder.exists():
        shutil.rmtree(folder)
    about = Provenance.of(
        cell.embodiment, found.instruction, PERIOD_NS, task=task, seed=found.seed, operator=OPERATOR,
        contract_hash=contract_hash, interventions=found.interventions,
    )  # fmt: skip
    with EpisodeWriter(folder, about) as writer:
        for state, images, action in zip(found.states, found.images, found.actions, strict=True):
            for name, image in images.items():
                writer.image(name, state.stamp_ns, image)
            writer.joints(state)
            writer.action(state.stamp_ns, action)
        writer.finish("success" if found.success else "failure")


_open: dict[tuple[str, str, str], tuple["Cell", "PolicyDriver", str]] = {}
"""One cell and policy per worker process."""


def _kept(outcomes: Iterator[Outcome], folder: Path) -> Iterator[Outcome]:
    """Note each outcome, so that a stopped round goes on where it was."""
    for outcome in outcomes:
        add_row(folder / LOG, outcome)
        yield outcome


def _done(folder: Path) -> dict[int, Outcome]:
    return {row[0]: Outcome(*row) for row in read_rows(folder / LOG)}


def _counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    alone = sum(outcome.success and not outcome.corrected for outcome in outcomes)
    rescued = sum(outcome.success and outcome.corrected for outcome in outcomes)
    return {
        "runs": len(outcomes),
        "done by the policy alone": alone,
        "corrected": rescued,
        "not to be saved": len(outcomes) - alone - rescued,
    }


def _train_and_compare(arguments: argparse.Namespace, tasks: Sequence[str]) -> int:
    """Train on from the policy, then evaluate both; say the commands, so that each can be given by hand."""
    out: Path = arguments.out
    corrections = [out / "corrections" / task for task in tasks if list((out / "corrections" / task).glob("*/*.yaml"))]
    if not corrections:
        print("nothing was corrected: there is nothing to learn in this round")
        return 0
    train = ["train", "--preset", arguments.preset, "--base", arguments.policy, "--robot", arguments.robot]
    train += ["--steps", str(arguments.steps), "--out", str(out / "run")]
    train += ["--data", *map(str, arguments.data), *map(str, corrections)]
    code = _command(train)
    if code or not arguments.evaluate:
        return code
    evaluate = ["evaluate", "--policy", str(out / "run" / "checkpoint"), "--against", arguments.policy]
    evaluate += ["--task", *tasks, "--episodes", str(arguments.evaluate), "--condition", "normal"]
    evaluate += ["--robot", arguments.robot, "--out", str(out / "evaluation"), "--workers", str(arguments.workers)]
    return _command(evaluate + (["--json"] if arguments.json else []))


def _command(words: Sequence[str]) -> int:
    print("imagewam " + " ".join(words), flush=True)
    chosen = cli.parse(list(words))
    return int(chosen.run(chosen))
