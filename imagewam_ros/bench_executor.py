# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench executor`: qualify a robot's limits against random abuse, and measure tracking.

Prints what each way of playing chunks does, then one line of JSON. Nothing here moves an arm.
"""

import argparse
import json
import sys
from pathlib import Path

from imagewam_ros.control import campaign, tracking, travel
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError

JUMP = 1e-6
"""Largest velocity jump of the reference over the limit that passes."""

LATENCIES_S = (0.1, 0.2)

LATE = (0.5, 0.56, 0.65, 0.75, 0.8)
"""Shares of a chunk's travel in its second half that are drawn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark to `parser`."""
    parser.add_argument("--robot", default="sim_cell", help="robot name or path of its YAML (default: %(default)s)")
    parser.add_argument("--ticks", type=int, default=100_000, help="commands in the campaign (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of campaign and trajectories (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="draw the travel of late-moving chunks into this PNG and do no more")
    parser.add_argument("--timing", action="store_true", help="run the real node instead: period, CPU, allocations")
    parser.add_argument("--seconds", type=float, default=20.0, help="of --timing (default: %(default)s)")
    parser.add_argument("--output", default="forward", help="of --timing: forward, trajectory (default: %(default)s)")
    parser.add_argument("--fifo-priority", type=int, default=0, help="of --timing: SCHED_FIFO, 1 to 99 (default: off)")
    parser.add_argument("--cpu", type=int, default=-1, help="of --timing: CPU of the control thread (default: any)")
    parser.add_argument("--guarded", action="store_true", help="of --timing: with the guard, as on hardware")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark. Returns 0 when no limit was exceeded and no tick starved, else 1."""
    if args.ticks < 1 or args.seed < 0:
        raise ConfigError(
            f"--ticks must be positive and --seed not negative, found {args.ticks} and {args.seed}; "
            "try --ticks 100000 --seed 0"
        )
    robot, quiet = load_embodiment(args.robot), args.json
    if args.plot:
        plot_travel(robot, args.plot)
        print(args.plot)
        return 0
    if args.timing:
        return _time(robot, args)
    tally = campaign.run(robot, args.ticks, args.seed, None if quiet else _progress(args.ticks))
    ratios = {}
    for latency_s in LATENCIES_S:
        errors = tracking.errors(robot, latency_s, args.seed)
        ratios[f"tracking_ratio_{round(latency_s * 1e3)}ms"] = tracking.ratio(errors)
        if not quiet:
            _print_ways(robot, latency_s, args.seed, errors)
    travelled = travel.through_executor(robot).ratio
    if not quiet:
        print(f"late-moving chunks: {travelled:.3f} of the predicted travel; ", end="")
        print(f"replanning every 8 from row 0: {travel.replan_from_row_zero().ratio:.3f}")
        print(f"chunks accepted {tally.accepted}, refused {tally.refused}, limited ticks {tally.limited_ticks}")
        if tally.first_violation:
            print(f"first violation: {tally.first_violation}")
    result = {
        "robot": robot.name,
        "seed": args.seed,
        "ticks": tally.ticks,
        "violations": tally.violations,
        "starved_ticks": tally.starved_ticks,
        "unstoppable": tally.unstoppable,
        "velocity_jump": tally.velocity_jump,
        **ratios,
        "travel_ratio": travelled,
    }
    print(json.dumps(result))
    passed = not (tally.violations or tally.starved_ticks or tally.unstoppable) and tally.velocity_jump <= JUMP
    return 0 if passed else 1


def _time(robot: Embodiment, args: argparse.Namespace) -> int:
    """Measure the real node; figures judge nothing."""
    from imagewam_ros.bench_timing import measure, table  # needs ROS

    if not args.seconds > 0:
        raise ConfigError(f"--seconds must be positive, found {args.seconds}; try --seconds 20")
    found = measure(robot, args)
    if not args.json:
        print(table(found))
    print(json.dumps(found))
    return 0


def plot_travel(robot: Embodiment, path: Path) -> None:
    """Draw the travel of late-moving chunks over time, and over how late they move."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ours, theirs = travel.through_executor(robot), travel.replan_from_row_zero()
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    over_time, over_share = figure.subplots(1, 2)
    over_time.plot(ours.time_s, ours.promised, "k--", lw=1, label="predicted (demonstration)")
    over_time.plot(ours.time_s, ours.travelled, label=f"executor, default parameters: {ours.ratio:.0%}")
    over_time.plot(theirs.time_s, theirs.travelled, label=f"wait, play rows 0 to 7, ask again: {theirs.ratio:.0%}")
    over_time.set(xlabel="time, s", ylabel="travel of one joint, rad")
    over_time.set_title("56 % of each chunk's travel in its second half, inference 0.23 s", fontsize=10)
    for every, style in ((travel.EVERY, "C0-o"), (12, "C2-s"), (15, "C4-^")):
        cases = [travel.through_executor(robot, first_half=1 - late, every=every).ratio for late in LATE]
        over_share.plot(LATE, cases, style, ms=4, label=f"executor, asked every {every} rows")
    loop = [travel.replan_from_row_zero(1 - late).ratio for late in LATE]
    over_share.plot(LATE, loop, "C1-x", ms=4, label="wait, play rows 0 to 7, ask again")
    over_share.axvline(1 - travel.FIRST_HALF, color="k", ls=":", lw=1, label="the field report")
    over_share.set(xlabel="share of a chunk's travel in its second half", ylabel="executed / predicted", ylim=(0, 1.15))
    over_share.set_title("How late the policy may move", fontsize=10)
    for axes in (over_time, over_share):
        axes.legend(loc="lower left" if axes is over_share else "upper left", fontsize=8)
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _print_ways(robot: Embodiment, latency_s: float, seed: int, errors: dict[str, float]) -> None:
    """Table of tracking errors, and of peaks where chunks disagree."""
    peaks = tracking.peaks(robot, latency_s, seed)
    print(
        f"\nlatency {latency_s * 1e3:.0f} ms{'':12} rms error   "
        "with chunks that disagree by 10 mrad: peak share of limit"
    )
    print(f"{'':24} rad, m      velocity  acceleration  jerk   travel")
    for name, error in errors.items():
        velocity, acceleration, jerk, travelled = peaks[name]
        print(f"{name:22} {error:9.2e}   {velocity:8.2f}  {acceleration:12.2f}  {jerk:4.2f}  {travelled:7.2f}")


def _progress(total: int) -> "campaign.Progress":
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{min(done, total)} of {total} ticks", end="" if done < total else "\n", file=sys.stderr)

    return show
