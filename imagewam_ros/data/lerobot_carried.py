# SPDX-License-Identifier: Apache-2.0
"""What our episodes say and LeRobot has no place for, one line per episode, so that it survives the way back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.episode import Provenance

CONTRACT, EPISODES = "imagewam_contract.json", "imagewam_episodes.jsonl"
CARRIED = ("label", "seed", "task", "operator", "contract_hash", "policy_ran")
"""Fields of the provenance that are an episode's own. Without them a failure or a policy's run would come back as
a demonstration, and a scene of the evaluation as one to learn from."""


def carried_of(about: Provenance) -> dict[str, Any]:
    """Return what is carried of one episode."""
    return {name: getattr(about, name) for name in CARRIED}


def write_carried(root: Path, lengths: Sequence[int], carried: Sequence[Mapping[str, Any]]) -> None:
    """Write what is carried of the episodes of a data set; lengths in frames say whose line it is."""
    rows = [{"length": length, **one} for length, one in zip(lengths, carried, strict=True)]
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    (root / "meta" / EPISODES).write_text(text, encoding="utf8")


def read_carried(root: Path, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Return what a data set carries of its episodes, which have these lengths in frames; nothing where it is foreign.

    Raises EpisodeError where it is ours and does not say, or says it of other episodes.
    """
    path = root / "meta" / EPISODES
    foreign = f"remove meta/{CONTRACT} and meta/{EPISODES} to read all episodes as successes of unknown scenes"
    if not path.exists():
        if (root / "meta" / CONTRACT).exists():
            raise EpisodeError(f"{root} lacks meta/{EPISODES} with labels and seeds; convert again, or {foreign}")
        return [{} for _ in lengths]
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    if [row["length"] for row in rows] != list(lengths):
        raise EpisodeError(
            f"{path} tells of {len(rows)} episodes, and the data set's {len(lengths)} are not those: it was changed "
            f"since; convert again, or {foreign}"
        )
    return [{name: row[name] for name in CARRIED} for row in rows]
