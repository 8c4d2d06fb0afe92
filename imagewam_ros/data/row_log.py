# SPDX-License-Identifier: Apache-2.0
"""A command's output folder, and in it a log of what is done, so that a stopped command goes on.

The log has one JSON value per line; a torn last line is no line.
"""

import json
from pathlib import Path
from typing import Any

from imagewam_ros.core.errors import DiskError


def make_folder(path: Path) -> None:
    """Make a folder to write to, before there is anything to lose. Raises DiskError when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot make {path}: {error.strerror}; choose another --out") from error


def read_rows(path: Path) -> list[Any]:
    """Return the rows, none where there is no log. A last line that was cut off is cut away."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.decode("utf8").splitlines()]


def add_row(path: Path, row: Any) -> None:
    """Add a row. Raises DiskError when it cannot be written."""
    try:
        with path.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error}; free some space, then give the same command again") from error
