# SPDX-License-Identifier: Apache-2.0
"""What the cameras show: exposure, the same picture twice, and wrist cameras on the wrong arm."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import Floats, Image
from imagewam_ros.doctor_checks.finding import Finding, failed, passed, skipped, warned
from imagewam_ros.doctor_checks.streams import Heard, Joints

DARK, BRIGHT = 20.0, 235.0
CLIPPED_SHARE = 0.3
FLAT = 3.0
SAME = 1.0
"""Two cameras never differ by less than this (mean grey levels) unless they are one."""
MOVED_RAD = 0.05
CLEARLY = 1.5
SWAP = "check serial numbers and topics of the wrist cameras"
WRISTS = {"left": "left_wrist", "right": "right_wrist"}


def check_pictures(heard: Heard, robot: Embodiment) -> Iterator[Finding]:
    """Judge the pictures that were kept."""
    pictures = {name: images for name, (_, images) in heard.images.items() if images}
    for name, images in pictures.items():
        yield from check_exposure(name, images[-1])
    for one, other in combinations(pictures, 2):
        if _same(pictures[one][-1], pictures[other][-1]):
            yield failed(
                "camera swap",
                f"{one} and {other} show the same picture",
                "two topics come from one device; check the serials",
            )
    yield from check_swap(heard, robot)


def check_exposure(name: str, image: Image) -> Iterator[Finding]:
    """Judge one uint8 RGB picture."""
    grey = image.mean(axis=2)
    mean, spread = float(grey.mean()), float(grey.std())
    clipped = float(np.mean((grey <= 2) | (grey >= 253)))
    found = f"mean brightness {mean:.0f} of 255, spread {spread:.0f}, {clipped:.0%} clipped"
    if spread < FLAT:
        yield failed(
            f"exposure {name}",
            f"{found}: nothing is to be seen",
            "lens cap, no light, or a driver that sends blank images?",
        )
    elif not DARK <= mean <= BRIGHT or clipped > CLIPPED_SHARE:
        yield warned(
            f"exposure {name}", found, "set exposure and light as they were when the training data was recorded"
        )
    else:
        yield passed(f"exposure {name}", found)


def _same(one: Image, other: Image) -> bool:
    return one.shape == other.shape and float(np.abs(one.astype(np.float64) - other).mean()) < SAME


def check_swap(heard: Heard, robot: Embodiment) -> Iterator[Finding]:
    """A wrist camera sees the world move when its own arm moves, and more than the other one does."""
    kept = {side: heard.images.get(name) for side, name in WRISTS.items()}
    if heard.joints is None or any(entry is None or len(entry[1]) < 3 for entry in kept.values()):
        yield skipped("camera swap", "both wrist cameras and joint_states are needed")
        return
    times = {side: entry[0] for side, entry in kept.items() if entry is not None}
    changes = {side: _changes(entry[1]) for side, entry in kept.items() if entry is not None}
    motion = {side: _motion(heard.joints, robot, side, times) for side in WRISTS}
    moved = [side for side in WRISTS if motion[side][side].sum() > MOVED_RAD]
    if len(moved) != 1:
        how = "neither arm moved" if not moved else "both arms moved"
        yield skipped("camera swap", how, "move one arm alone, by hand or teleop, while doctor listens")
        return
    side = moved[0]
    other = "right" if side == "left" else "left"
    mine, theirs = (float(changes[s][motion[side][s] > motion[side][s].max() / 4].mean()) for s in (side, other))
    changed = f"{WRISTS[side]} changed by {mine:.1f}, {WRISTS[other]} by {theirs:.1f} grey levels per picture"
    found = f"the {side} arm moved; {changed}"
    if theirs > CLEARLY * mine:
        yield failed("camera swap", f"{found}: the wrist cameras look swapped", SWAP)
    elif mine > CLEARLY * theirs:
        yield passed("camera swap", found)
    else:
        yield warned("camera swap", f"{found}: no clear difference", "move one arm further while doctor listens")


def _changes(images: Sequence[Image]) -> Floats:
    """(n - 1,) mean change of grey level between successive pictures."""
    grey = np.stack([image.astype(np.float64).mean(axis=2) for image in images])
    changes: Floats = np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2))
    return changes


def _motion(
    joints: Joints, robot: Embodiment, side: str, times: Mapping[str, "np.ndarray[tuple[int], np.dtype[np.int64]]"]
) -> dict[str, Floats]:
    """Per camera side, (n - 1,) rad that the arm `side` turned between successive pictures."""
    names = [joint.name for joint in robot.joints[robot.arm_slice(side)][:-1] if joint.name in joints.names]
    columns = joints.positions[:, [joints.names.index(name) for name in names]]
    turned = {}
    for camera, stamps in times.items():
        at = np.stack([np.interp(stamps, joints.stream.stamps_ns, column) for column in columns.T], axis=1)
        turned[camera] = np.abs(np.diff(at, axis=0)).sum(axis=1)
    return turned
