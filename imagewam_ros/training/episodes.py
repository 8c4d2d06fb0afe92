# SPDX-License-Identifier: Apache-2.0
"""Which recorded episodes a policy learns from, and how many are left out for which reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, EpisodeError
from imagewam_ros.data.episode import FIRST_SEED, Provenance, find_episodes, read_provenance


@dataclass(frozen=True)
class Chosen:
    """Episodes to learn from by folder, and the number of those left out by reason."""

    episodes: Mapping[Path, Provenance]
    left_out: Mapping[str, int]


def choose_episodes(roots: Sequence[Path], policy_runs: bool = False) -> Chosen:
    """Choose the successful episodes with an instruction under `roots`; with policy_runs also those of a policy alone.

    Raises EpisodeError when there is none, or one of a scene that evaluations use.
    """
    found = {path: read_provenance(path) for root in roots for path in find_episodes(root)}
    for path, about in found.items():
        if 0 <= about.seed < FIRST_SEED:
            raise EpisodeError(
                f"{path} was made from seed {about.seed}: seeds below {FIRST_SEED} are for evaluation, and no policy "
                "is tested on what it saw; leave the episode out or record it again with another --seed"
            )
    reasons = {path: _reason(about, policy_runs) for path, about in found.items()}
    chosen = {path: about for path, about in found.items() if not reasons[path]}
    left_out = Counter(reason for reason in reasons.values() if reason)
    left_out["cut off (`imagewam record --recover` may save them)"] = _cut_off(roots, found)
    counts = {reason: count for reason, count in left_out.most_common() if count}
    if not chosen:
        raise EpisodeError(
            f"none of {len(found)} episodes is labelled success and has an instruction; nothing to learn from "
            f"({counted(counts)})"
        )
    return Chosen(chosen, counts)


def check_episodes(episodes: Mapping[Path, Provenance], contract: Contract, robot: Embodiment) -> None:
    """Raise EmbodimentMismatch, naming episode and field, when one does not fit contract and robot."""
    expected = {
        "joint_names": robot.joint_names,
        "period_ns": contract.period_ns,
        "first_row_offset_periods": contract.first_row_offset_periods,
    }
    for path, about in episodes.items():
        for name, wanted in expected.items():
            found = getattr(about, name)
            if wanted != found:
                raise EmbodimentMismatch(f"{path}: {name} is {found}, the others have {wanted}; leave it out")
        cameras = [name for name, _ in about.cameras]
        lacking = [name for name in contract.camera_names if name not in cameras]
        if lacking:
            raise EmbodimentMismatch(
                f"{path} has no camera {', '.join(lacking)}, only {', '.join(cameras) or 'none'}; name the cameras of "
                "the robot's YAML as the episodes do, or leave it out"
            )


def counted(left_out: Mapping[str, int]) -> str:
    """Return reasons and their numbers in words."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _reason(about: Provenance, policy_runs: bool) -> str:
    """Why an episode is left out, empty where it is not."""
    if not about.label:
        return "unlabelled"
    if about.label != "success":
        return f"labelled {about.label}"
    if about.unaided and not policy_runs:
        return "done by a policy alone (--policy-runs learns from them)"
    return "" if about.instruction else "without an instruction"


def _cut_off(roots: Sequence[Path], whole: Mapping[Path, Provenance]) -> int:
    return len({path.parent for root in roots for path in root.glob("*/*.mcap")} - set(whole))
