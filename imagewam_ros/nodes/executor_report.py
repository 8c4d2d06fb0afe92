# SPDX-License-Identifier: Apache-2.0
"""What the executor says about itself on /diagnostics and in the log."""

from collections.abc import Mapping

from imagewam_ros.control.ledger import Travel
from imagewam_ros.control.report import State, Status
from imagewam_ros.control.shadow import Agreement
from imagewam_ros.nodes.diagnostics import ERROR, OK, WARN

LEVELS = {State.RUNNING: OK, State.TAKEOVER: OK, State.HOLDING: WARN, State.FAULTED: ERROR, State.INACTIVE: OK}
COUNTERS = ("tick", "limited_ticks", "braked_ticks", "guarded_ticks", "starved_ticks", "late_ticks", "time_jumps")


def diagnosis(status: Status) -> tuple[bytes, str, dict[str, object]]:
    """Level, message and values of a diagnostic status."""
    values = {name: getattr(status, name) for name in COUNTERS} | travel_texts(status.travel)
    return LEVELS.get(status.state, OK), f"{status.state.value}: {status.reason}", values


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
