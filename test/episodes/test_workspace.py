# SPDX-License-Identifier: Apache-2.0
"""A folder in the making belongs to one destination and one set of options; a full disk is one kind of error."""

import errno
import os
from pathlib import Path

import av
import pyarrow as pa
import pytest

from imagewam_ros.core.errors import DiskError, EpisodeError
from imagewam_ros.data.workspace import workspace, writing


def test_the_same_options_find_the_same_folder(tmp_path: Path) -> None:
    work = workspace(tmp_path / "out", {"crf": 18, "labels": ("success",)})
    (work / "begun").touch()
    assert workspace(tmp_path / "out", {"labels": ("success",), "crf": 18}) == work and (work / "begun").exists()
    with pytest.raises(EpisodeError, match=r"out\.part was begun with other options \(crf 18\); remove it, or use"):
        workspace(tmp_path / "out", {"crf": 20, "labels": ("success",)})


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="exists; choose another folder or remove it first"):
        workspace(tmp_path, {})


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        av.FFmpegError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        pa.ArrowException("No space left on device"),
    ],
)
def test_writing_fails_in_one_way(tmp_path: Path, error: Exception) -> None:
    text = rf"cannot write {tmp_path}: .*No space left on device.*; free some space, or .* then goes on"
    with pytest.raises(DiskError, match=text), writing(tmp_path):
        raise error


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"cannot write .*out\.part: .*Not a directory"):
        workspace(tmp_path / "file" / "out", {})
