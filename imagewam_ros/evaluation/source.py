# SPDX-License-Identifier: Apache-2.0
"""Where the evaluated chunks come from: a checkpoint in this process, or a server at the same boundary."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.remote.client import RemotePolicy, is_remote, parse_address

CHECKPOINT_FILES = ("config.json", "model.safetensors")


class ChunkSource(Protocol):
    """A policy: observation in, chunk out."""

    def set_instruction(self, text: str) -> None:
        """Prepare an instruction ahead of its first observation."""
        ...

    def infer(self, observation: Observation, seed: int = 0, ready_ns: int = 0) -> ActionChunk:
        """Return the chunk that follows an observation, drawn from the noise of `seed` where there is any."""
        ...


class Source(NamedTuple):
    """A policy and the cameras that it looks through."""

    policy: ChunkSource
    cameras: tuple[str, ...]


def open_source(name: str, robot: Embodiment) -> Source:
    """Load a checkpoint (a name in models/ or a directory) or connect to ws://host:port."""
    if is_remote(name):
        remote = RemotePolicy(parse_address(name), robot.joint_names)
        return Source(remote, remote.camera_names)
    from imagewam_ros.policy import Policy

    policy = Policy.load(find_checkpoint(name), robot)
    return Source(policy, policy.contract.camera_names)


def identity(name: str) -> dict[str, Any]:
    """Return what tells a policy from others: path and hash, or address and what the server says of itself.

    Raises CheckpointError, and RemoteError for a server that is not there.
    """
    if is_remote(name):
        remote = RemotePolicy(parse_address(name), ())
        remote.close()
        said = json.loads(json.dumps(remote.metadata, default=str))
        return {"policy": name, "checkpoint": str(said.get("contract_hash", "")), "server": said}
    directory = find_checkpoint(name)
    return {"policy": name, "checkpoint": checkpoint_hash(directory)}


def checkpoint_hash(directory: Path) -> str:
    """First 16 hex digits of the SHA-256 over configuration and weights. Raises CheckpointError."""
    digest = hashlib.sha256()
    for name in CHECKPOINT_FILES:
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"no {name} in {directory}; is it a checkpoint directory?")
        with path.open("rb") as file:
            while part := file.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()[:16]
