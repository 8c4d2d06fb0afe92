# SPDX-License-Identifier: Apache-2.0
"""A folder in the making, beside its destination: nothing is there until it is whole, and a stopped command goes on."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from av import FFmpegError
from pyarrow import ArrowException

from imagewam_ros.core.errors import DiskError, EpisodeError

OPTIONS = "options.json"


def workspace(out: Path, options: Mapping[str, Any]) -> Path:
    """Return the folder where `out` is made, new or from a command that was stopped.

    Raises EpisodeError when `out` exists, or when the folder was begun with other options.
    """
    if out.exists():
        raise EpisodeError(f"{out} exists; choose another folder or remove it first")
    work = out.with_name(out.name + ".part")
    path = work / OPTIONS
    wanted = json.loads(json.dumps(options))
    begun = json.loads(path.read_text(encoding="utf8")) if path.exists() else wanted
    other = [f"{name} {begun.get(name)}" for name in wanted if begun.get(name) != wanted[name]]
    if other:
        raise EpisodeError(
            f"{work} was begun with other options ({', '.join(other)}); remove it, or use the same options to go on"
        )
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(options, indent=2), encoding="utf8")
        part.replace(path)
    return work


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full or failing disk raises, by itself or through a codec, into a DiskError that names `path`."""
    try:
        yield
    except (OSError, FFmpegError, ArrowException) as error:
        raise DiskError(
            f"cannot write {path}: {error}; free some space, or choose another disk. The same command then goes on"
        ) from error
