# SPDX-License-Identifier: Apache-2.0
"""Bring cameras and joints to one instant: the same rule for live topics and for bags.

A frame is one image of the reference camera (the first of the contract) with, from every other
camera, the image nearest to that shutter within a tolerance, and the joints interpolated to
the shutter. Nothing is extrapolated and nothing is repeated: what has no partner makes no frame.

The nearest image is unique because the tolerance stays below half a camera period, so it does
not matter whether later images are known already; that is why bags and live topics agree.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import ConfigError, StaleObservation, unknown_name
from imagewam_ros.core.schema import Floats, Image, Observation, frozen

Stamps = NDArray[np.int64]
JOINTS = "joint_states"
"""Name of the joint stream in ages and messages."""


@dataclass(frozen=True)
class SyncConfig:
    """How far apart partners may lie and how old a stream may be.

    image_tolerance_s must be below half of the shortest camera period; the default is for 30 Hz.
    joint_gap_s is the longest stretch between two joint samples that may be bridged by a straight
    line. max_age_s is counted from a stream's newest stamp.
    """

    image_tolerance_s: float = 0.016
    joint_gap_s: float = 0.1
    max_age_s: float = 0.3

    def __post_init__(self) -> None:
        for name in ("image_tolerance_s", "joint_gap_s", "max_age_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")

    def check(self, rates_hz: Mapping[str, float]) -> None:
        """Raise ConfigError unless an image has at most one partner in each of several cameras of these rates."""
        camera = max(rates_hz, key=lambda name: rates_hz[name])
        limit_s = 0.5 / rates_hz[camera]
        if len(rates_hz) > 1 and self.image_tolerance_s >= limit_s:
            raise ConfigError(
                f"image_tolerance_s must be below {limit_s:.4f}, half a period of camera {camera!r} "
                f"({rates_hz[camera]:g} Hz), found {self.image_tolerance_s}: a nearer image could come later"
            )

    @property
    def image_tolerance_ns(self) -> int:
        """Largest distance of a partner image from the shutter."""
        return round(self.image_tolerance_s * 1e9)

    @property
    def joint_gap_ns(self) -> int:
        """Longest stretch between neighbouring joint samples."""
        return round(self.joint_gap_s * 1e9)

    @property
    def max_age_ns(self) -> int:
        """Oldest stamp to act on."""
        return round(self.max_age_s * 1e9)


@dataclass(frozen=True)
class Frame:
    """One instant: the index of the image of each camera, and (joints,) positions in rad or m.

    ages_ns is shutter minus stamp per stream; for the joints it counts from the sample before.
    """

    stamp_ns: int
    image_index: Mapping[str, int]
    positions: Floats
    ages_ns: Mapping[str, int]


def frames(
    image_stamps: Mapping[str, Sequence[int] | Stamps],
    joint_stamps: Sequence[int] | Stamps,
    joint_positions: Floats,
    config: SyncConfig,
) -> list[Frame]:
    """Return every frame that the streams hold, oldest first.

    The first camera of `image_stamps` is the reference. All stamps are sorted and in ns;
    joint_positions is (samples, joints).
    """
    cameras = {name: np.asarray(stamps, dtype=np.int64) for name, stamps in image_stamps.items()}
    reference, *others = cameras
    shutters, joints = cameras[reference], np.asarray(joint_stamps, dtype=np.int64)
    partners = {name: nearest(cameras[name], shutters, config.image_tolerance_ns) for name in others}
    before, weight = _neighbours(joints, shutters, config.joint_gap_ns)
    complete = before >= 0
    for partner in partners.values():
        complete = complete & (partner >= 0)
    found = []
    for row in np.flatnonzero(complete):
        index = {reference: int(row), **{name: int(partner[row]) for name, partner in partners.items()}}
        stamp = int(shutters[row])
        ages = {name: stamp - int(cameras[name][i]) for name, i in index.items()}
        ages[JOINTS] = stamp - int(joints[before[row]])
        found.append(Frame(stamp, index, _between(joint_positions, int(before[row]), float(weight[row])), ages))
    return found


def interpolate(stamps: Sequence[int] | Stamps, positions: Floats, at_ns: int, gap_ns: int) -> Floats:
    """Return (joints,) positions at `at_ns` on the line between its two neighbours.

    Raises StaleObservation when `at_ns` lies outside the samples or its neighbours are further
    apart than `gap_ns`.
    """
    known = np.asarray(stamps, dtype=np.int64)
    before, weight = _neighbours(known, np.array([at_ns], dtype=np.int64), gap_ns)
    if before[0] < 0:
        span = f"{known[0]} to {known[-1]} ns" if known.size else "no samples"
        raise StaleObservation(
            f"no {JOINTS} around {at_ns} ns: found {span}, neighbours at most {gap_ns / 1e9:g} s apart are needed; "
            "are the joints published and are their stamps in the cameras' clock?"
        )
    return _between(positions, int(before[0]), float(weight[0]))


def nearest(stamps: Stamps, targets: Stamps, tolerance_ns: int) -> NDArray[np.intp]:
    """Return per target the index of the nearest stamp within the tolerance, -1 where none is.

    Of two equally near stamps the earlier one wins.
    """
    if stamps.size == 0:
        return np.full(targets.shape, -1, dtype=np.intp)
    after = np.searchsorted(stamps, targets).clip(0, stamps.size - 1)
    before = (after - 1).clip(0)
    chosen = np.where(np.abs(stamps[before] - targets) <= np.abs(stamps[after] - targets), before, after)
    return np.where(np.abs(stamps[chosen] - targets) <= tolerance_ns, chosen, -1)


def _neighbours(stamps: Stamps, targets: Stamps, gap_ns: int) -> tuple[NDArray[np.intp], Floats]:
    """Index of the sample at or before each target, -1 where none bridges it, and the weight of the next."""
    if stamps.size == 0:
        return np.full(targets.shape, -1, dtype=np.intp), np.zeros(targets.shape)
    before = np.searchsorted(stamps, targets, side="right") - 1
    low = before.clip(0)
    high = (low + 1).clip(max=stamps.size - 1)
    exact = stamps[low] == targets
    span = np.where(exact | (high == low), 1, stamps[high] - stamps[low])
    bridged = exact | ((before >= 0) & (high > low) & (span <= gap_ns))
    weight = np.where(exact, 0.0, (targets - stamps[low]) / span)
    return np.where(bridged, low, -1), weight


def _between(positions: Floats, before: int, weight: float) -> Floats:
    """Point on the line from one sample to the next; the sample itself where the weight is 0."""
    if weight == 0.0:
        return frozen(positions[before])
    return frozen(positions[before] + weight * (positions[before + 1] - positions[before]))


@dataclass
class _Stream:
    """The newest samples of one stream, sorted by stamp; late and repeated ones are dropped."""

    topic: str
    kind: str
    depth: int
    stamps: deque[int] = field(default_factory=deque)
    values: deque[Any] = field(default_factory=deque)

    def add(self, stamp_ns: int, value: Any) -> bool:
        if self.stamps and stamp_ns <= self.stamps[-1]:
            return False
        self.stamps.append(stamp_ns)
        self.values.append(value)
        if len(self.stamps) > self.depth:
            self.stamps.popleft()
            self.values.popleft()
        return True

    def clear(self) -> None:
        self.stamps.clear()
        self.values.clear()


class Synchroniser:
    """The newest frame of live streams. Latest wins: a frame that nobody took is replaced.

    Time comes in with the samples and as an argument, in ns of the stamps' clock. A stamp that
    goes back by more than max_age_s is a jump of that clock: everything from before is forgotten.
    """

    def __init__(
        self,
        topics: Mapping[str, str],
        joint_topic: str,
        config: SyncConfig,
        decode: Callable[[str, Any], Image] = lambda camera, image: image,
    ) -> None:
        """Name the topic of each camera, the reference camera first.

        `decode(camera, image)` turns what was added into pixels, for the images that make a frame only.
        """
        self._config, self._decode = config, decode
        # Joints arrive up to a thousand times a second; two seconds of them cover slow cameras.
        self._joints = _Stream(joint_topic, "joints", 2000)
        self._cameras = {name: _Stream(topic, "camera", 8) for name, topic in topics.items()}

    def add_image(self, camera: str, stamp_ns: int, image: Any) -> bool:
        """Take one image. False when it is not newer than the last. Raises StaleObservation for an unknown camera."""
        if camera not in self._cameras:
            raise StaleObservation(unknown_name("camera", camera, self._cameras))
        return self._add(self._cameras[camera], stamp_ns, image)

    def add_joints(self, stamp_ns: int, positions: Floats) -> bool:
        """Take one joint sample, (joints,) in the contract's order. False when it is not newer than the last."""
        return self._add(self._joints, stamp_ns, positions)

    def _add(self, stream: _Stream, stamp_ns: int, value: Any) -> bool:
        if stream.stamps and stamp_ns < stream.stamps[-1] - self._config.max_age_ns:
            self.clear()
        return stream.add(stamp_ns, value)

    def clear(self) -> None:
        """Forget everything, as after a jump of the clock."""
        for stream in (*self._cameras.values(), self._joints):
            stream.clear()

    def check(self, now_ns: int) -> None:
        """Raise StaleObservation naming every stream that is missing, too old or stamped in the future."""
        streams = {**self._cameras, JOINTS: self._joints}
        texts = [text for name, stream in streams.items() if (text := self._complaint(name, stream, now_ns))]
        if texts:
            raise StaleObservation("; ".join(texts))

    def newest(self, after_ns: int = -1) -> Frame | None:
        """Return the newest complete frame with a shutter later than `after_ns`, if there is one."""
        stamps = {name: list(stream.stamps) for name, stream in self._cameras.items()}
        reference = next(iter(stamps))
        fresh = [stamp for stamp in stamps[reference] if stamp > after_ns]
        if not fresh or not self._joints.stamps:
            return None
        skipped = len(stamps[reference]) - len(fresh)
        joint_stamps = list(self._joints.stamps)
        first = max(bisect_right(joint_stamps, fresh[0]) - 1, 0)
        positions = np.array(list(islice(self._joints.values, first, None)), dtype=np.float64)
        found = frames({**stamps, reference: fresh}, joint_stamps[first:], positions, self._config)
        if not found:
            return None
        last = found[-1]
        index = {**last.image_index, reference: last.image_index[reference] + skipped}
        return Frame(last.stamp_ns, index, last.positions, last.ages_ns)

    def observation(
        self, now_ns: int, instruction: str, instruction_id: int = 0, after_ns: int = -1
    ) -> Observation | None:
        """Return the newest frame as an observation, or None while it is not complete yet.

        Raises StaleObservation when a stream is missing or too old at `now_ns`.
        """
        self.check(now_ns)
        frame = self.newest(after_ns)
        if frame is None:
            return None
        images = {
            name: self._decode(name, self._cameras[name].values[index]) for name, index in frame.image_index.items()
        }
        return Observation(
            stamp_ns=frame.stamp_ns,
            images=images,
            positions=frame.positions,
            instruction=instruction,
            instruction_id=instruction_id,
            ages_ns=frame.ages_ns,
        )

    def _complaint(self, name: str, stream: _Stream, now_ns: int) -> str:
        what = f"camera {name!r}" if stream.kind == "camera" else name
        limit_s = self._config.max_age_s
        if not stream.stamps:
            return f"{what}: nothing received yet; is {stream.topic} published?"
        age_s = (now_ns - stream.stamps[-1]) / 1e9
        if age_s > limit_s:
            return f"{what} silent for {age_s:.2f} s (limit {limit_s:.2f} s); is {stream.topic} published?"
        if age_s < -limit_s:
            return (
                f"{what} stamped {-age_s:.2f} s in the future (limit {limit_s:.2f} s); "
                f"does {stream.topic} use this machine's clock, or should use_sim_time be set?"
            )
        return ""
