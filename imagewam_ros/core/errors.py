# SPDX-License-Identifier: Apache-2.0
"""Errors a user can meet. Each text says what was asked, what was found, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class ImageWamError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(ImageWamError):
    """A configuration file, parameter or argument is wrong."""


class EmbodimentMismatch(ImageWamError):
    """Data, checkpoint and robot do not describe the same joints or cameras."""


class StaleObservation(ImageWamError):
    """A camera or joint stream is silent or too old to act on."""


class LimitViolation(ImageWamError):
    """A motion was asked for that the robot's limits forbid."""


class EpisodeError(ImageWamError):
    """A recording is missing, unlabelled, unfinished or damaged."""


class DiskError(ImageWamError):
    """A disk is full, read-only or failing."""


class CheckpointError(ImageWamError):
    """A checkpoint cannot be read, is incomplete or belongs to another model."""


class CameraError(ImageWamError):
    """A camera is absent, in use, forbidden, or asked for something that it cannot do."""


class DeviceError(ImageWamError):
    """An operator's input device is absent, forbidden or unknown."""


class RemoteError(ImageWamError):
    """A policy on another machine is silent, gone, failed or answered with something else."""


class GraphError(ImageWamError):
    """A process of the running graph is missing, died or does not answer."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the text for an unknown name: the nearest match first, then all that exist.

    >>> unknown_name("camera", "left_wrst", ["head", "left_wrist"])
    "unknown camera 'left_wrst'; did you mean 'left_wrist'? known: head, left_wrist"
    """
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names) or 'none'}"
