# SPDX-License-Identifier: Apache-2.0
"""What the executor says about itself on /diagnostics and in the log."""

from collections.abc import Mapping

from imagewam_ros.control.ledger import Travel
from imagewam_ros.control.report import State, Status
from imagewam_ros.control.shadow import Agreement
from imagewam_ros.core.schema import ActionChunk
from imagewam_ros.nodes.diagnostics import ERROR, OK, WARN, Meter

LEVELS = {State.RUNNING: OK, State.TAKEOVER: OK, State.HOLDING: WARN, State.FAULTED: ERROR, State.INACTIVE: OK}
COUNTERS = ("tick", "limited_ticks", "braked_ticks", "guarded_ticks", "starved_ticks", "late_ticks", "time_jumps")

ENOUGH_RAD, LITTLE_TRAVEL = 2.0, 0.7
"""After this much predicted travel an arm that executes a smaller share of it is reported."""


def diagnosis(status: Status) -> tuple[bytes, str, dict[str, object]]:
    """Level, message and values of a diagnostic status."""
    values = {name: getattr(status, name) for name in COUNTERS} | travel_texts(status.travel)
    level, message = LEVELS.get(status.state, OK), f"{status.state.value}: {status.reason}"
    slow = [side for side, t in status.travel.items() if t.predicted > ENOUGH_RAD and t.ratio < LITTLE_TRAVEL]
    if slow and level == OK:
        level, message = WARN, f"{message}; {' and '.join(slow)} arm executes little of its predicted travel"
    return level, message, values


def travel_texts(travels: Mapping[str, Travel]) -> dict[str, str]:
    """Where the predicted motion went, per arm; travel in rad summed over the joints."""
    return {
        f"{side}_travel": f"predicted {t.predicted:.2f} executed {t.executed:.2f} lost {t.lost:.2f} rad; "
        f"gripper events predicted {t.gripper_predicted} lost {t.gripper_lost}"
        for side, t in travels.items()
    }


def agreement_text(agreement: Agreement) -> str:
    """One arm's agreement with a policy that only watches."""
    return (
        f"policy and commands differ by {agreement.rms:.3f} rad rms, at most {agreement.largest:.3f} rad, "
        f"over {agreement.rows} rows; gripper alike in {agreement.gripper_rows}"
    )


ARRIVAL_STAGES = ("chunk_transport_s", "acceptance_s", "first_command_s")
"""From the chunk that left its maker to the first command that it had a part in, without gap or overlap."""


class Arrivals:
    """How long accepted chunks took, measured where they arrive. Called on the control thread alone."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._taken: tuple[ActionChunk, int] | None = None

    def accepted(self, chunk: ActionChunk, heard_ns: int, now_ns: int) -> str:
        """Take the stages up to acceptance; a complaint when rows after the committed ones are past, or nothing."""
        if self._taken is None:
            self._taken = chunk, now_ns
        self._meter.sample("chunk_transport_s", (heard_ns - chunk.ready_ns) / 1e9)
        self._meter.sample("acceptance_s", (now_ns - heard_ns) / 1e9)
        self._meter.sample("camera_to_acceptance_s", (now_ns - chunk.stamp_ns) / 1e9)
        past = sum(chunk.due_ns(row) <= now_ns for row in range(chunk.committed_rows, chunk.rows))
        if not chunk.committed_rows or not past:
            return ""
        self._meter.count("chunk past its committed rows")
        return (
            f"chunk {chunk.sequence} came {(now_ns - chunk.stamp_ns) / 1e9:.3f} s after its observation: its "
            f"{chunk.committed_rows} committed rows and {past} more are past and left out"
        )

    def sent(self, now_ns: int) -> None:
        """A command went out."""
        if self._taken is not None:
            chunk, accepted_ns = self._taken
            self._taken = None
            self._meter.sample("first_command_s", (now_ns - accepted_ns) / 1e9)
            self._meter.sample("camera_to_command_s", (now_ns - chunk.stamp_ns) / 1e9)
