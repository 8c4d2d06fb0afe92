# SPDX-License-Identifier: Apache-2.0
"""Weights on the Hugging Face Hub: fetched at one commit, and their licence."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from imagewam_ros.core.errors import CheckpointError, ConfigError

PINNED = re.compile(r"^[0-9a-f]{40}$")

FILES = ("model.pt", "dataset_stats.json", "config.yaml")
CARD = "README.md"

LICENCES = {
    ("flux2", 3072): "FLUX.2-klein-base-4B: Apache-2.0",
    ("flux2", 4096): "FLUX.2-klein-base-9B: FLUX non-commercial licence, not for commercial use",
    ("omnigen2", 2520): "OmniGen2: Apache-2.0",
    ("ovis_u1", 1536): "Ovis-U1: Apache-2.0",
}
"""Licence of the backbone behind the weights, by variant and width."""


def download(hub_id: str, wanted: Sequence[str] = FILES, needed: Sequence[str] = FILES) -> Path:
    """Fetch files of `owner/name@revision` into the Hub's cache; the revision is a whole commit.

    wanted are patterns, needed the names of files without which it is no checkpoint; the defaults are those of an
    official one. A branch or tag may change under its name, so it is refused. Raises ConfigError for what was asked
    and CheckpointError for what was found.
    """
    name, _, revision = hub_id.partition("@")
    if not PINNED.match(revision):
        raise ConfigError(f"{hub_id!r} names no pinned revision; add @ and the 40 hex digits of a commit")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise ConfigError("a Hub id needs huggingface_hub; pip install huggingface_hub") from None
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*wanted, CARD]))
    except HFValidationError as error:
        raise ConfigError(f"{name!r} is no Hub id ({error}); write owner/name@revision") from None
    except GatedRepoError:
        raise CheckpointError(
            f"{name} is gated; accept its licence on its page and log in with `hf auth login`"
        ) from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{hub_id} is not on this machine and the Hub does not answer; check the network"
        ) from None
    except HfHubHTTPError as error:
        raise CheckpointError(f"the Hub refused {hub_id} ({_first_line(error)}); check name and revision") from None
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"{hub_id} lacks {', '.join(missing)}; it is no official ImageWAM checkpoint")
    return folder


def licence(directory: Path) -> str:
    """Licence of the backbone of an imported directory."""
    model = json.loads((directory / "config.json").read_text(encoding="utf8"))["model"]
    width = model["network"]["hidden"]
    return LICENCES.get((model["variant"], width), "not one of the released backbones: see the weights' origin")


def stated_licence(source: Path) -> str:
    """Licence that the page of a downloaded checkpoint states, empty where there is none."""
    if not (source / CARD).is_file():
        return ""
    front = re.match(r"^---\n(.*?)\n---\n", (source / CARD).read_text(encoding="utf8"), re.DOTALL)
    try:
        data = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return ""
    found = [str(data[key]) for key in ("license", "license_name") if data.get(key)] if isinstance(data, dict) else []
    return ", ".join(found)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
