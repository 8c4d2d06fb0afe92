# SPDX-License-Identifier: Apache-2.0
"""When a correction begins and ends, and that a bag says the same of it as the live messages did."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from blank_message import blank_message
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.schema import Source
from imagewam_ros.data.bag import BagWriter, Topic
from imagewam_ros.data.bag_label import label_episode
from imagewam_ros.data.bag_types import typestore
from imagewam_ros.data.episode import CUSTOM_KEY, Provenance
from imagewam_ros.data.interventions import EVENT, PAUSE_NS, TAKEOVER, Corrections, event_topic
from imagewam_ros.data.recover import recover

MS = 1_000_000
ACTIVE, HOLDING, NO_CHUNK = 1, 2, 255


class Said(NamedTuple):
    """An event in few words."""

    at_ms: int
    trigger: str
    state: int
    source: int = NO_CHUNK


def accepted(at_ms: int, source: Source, state: int = TAKEOVER) -> Said:
    return Said(at_ms, "accepted", state, int(source))


def serialised(said: Said) -> bytes:
    return blank_message(EVENT, said.at_ms * MS, trigger=said.trigger, state=said.state, source=said.source)


def heard(story: Sequence[Said]) -> Corrections:
    """What the recorder makes of the events, one by one."""
    live = Corrections()
    for said in story:
        live.hear(typestore().deserialize_cdr(serialised(said), EVENT))
    return live


def spans_ms(story: Sequence[Said]) -> list[tuple[int, int]]:
    return [(first // MS, last // MS) for first, last in heard(story).spans]


def shown(*times_ms: int) -> list[Said]:
    return [accepted(at, Source.TAKEOVER) for at in times_ms]


def test_the_wait_for_the_leader_is_no_correction() -> None:
    story = [
        accepted(0, Source.POLICY, ACTIVE),
        Said(1000, "take_over", TAKEOVER),
        Said(2000, "refused", TAKEOVER, int(Source.TAKEOVER)),
        *shown(4000, 4020, 4040),
        Said(4050, "release", HOLDING),
        accepted(4100, Source.POLICY, ACTIVE),
    ]
    assert spans_ms(story) == [(4000, 4040)]
    assert spans_ms(story[:3]) == [], "nobody showed anything yet"
    assert spans_ms(story[:5]) == [(4000, 4020)], "the one that goes on is there too"


def test_one_arm_is_enough_and_the_policy_may_keep_the_other() -> None:
    both = [accepted(1010, Source.POLICY), *shown(1020), accepted(1030, Source.POLICY), *shown(1040)]
    assert spans_ms([Said(1000, "take_over", TAKEOVER), *both, Said(1050, "fault", 3)]) == [(1020, 1040)]


def test_a_new_takeover_and_a_pause_wait_again() -> None:
    pause = PAUSE_NS // MS
    again = [*shown(100, 200), Said(210, "take_over", TAKEOVER), *shown(400, 500)]
    assert spans_ms(again) == [(100, 200), (400, 500)]
    assert spans_ms(shown(100, 100 + pause, 101 + 2 * pause)) == [(100, 100 + pause), (101 + 2 * pause,) * 2]
    assert spans_ms([*shown(100, 120), Said(130, "time_jump", TAKEOVER), *shown(140)]) == [(100, 120), (140, 140)]
    assert spans_ms(shown(900, 910, 300, 310)) == [(900, 910), (300, 310)], "time went back"


def test_a_demonstration_has_no_corrections_and_no_policy() -> None:
    found = heard([accepted(at, Source.TELEOP, ACTIVE) for at in range(0, 200, 20)])
    assert (found.spans, found.policy_ran) == ((), False)
    assert spans_ms([accepted(5, Source.TELEOP)]) == [(5, 5)], "a human at the other arm of one that is taken over"
    for source, ran in ((Source.POLICY, True), (Source.REPLAY, True), (Source.TAKEOVER, False)):
        assert heard([accepted(1, source, ACTIVE)]).policy_ran is ran
    assert not heard([Said(1, "refused", ACTIVE, int(Source.POLICY)), Said(2, "hold", HOLDING)]).policy_ran


def test_a_policy_that_nobody_helped_is_told_apart() -> None:
    about = Provenance("cell", "lift", (), (), 1, 1.0)
    assert not about.unaided
    assert dataclasses.replace(about, policy_ran=True).unaided
    assert not dataclasses.replace(about, policy_ran=True, interventions=((1, 2),)).unaided


def test_the_events_of_the_same_cell_are_taken() -> None:
    kinds = {
        "/b/executor/event": EVENT,
        "/a/executor/event": EVENT,
        "/a/executor/status": "x",
        "/executor/event": EVENT,
    }
    assert event_topic(kinds, "/a/joint_states") == "/a/executor/event"
    assert event_topic(kinds, "/joint_states") == "/executor/event"
    assert event_topic({"/a/executor/event": EVENT}, "joint_states") == "/a/executor/event"
    assert event_topic({"/a/executor/status": "x"}, "/a/joint_states") == ""


events = st.builds(
    Said,
    st.integers(0, 300),
    st.sampled_from(["accepted", "accepted", "accepted", "refused", "take_over", "release", "time_jump"]),
    st.sampled_from([TAKEOVER, TAKEOVER, ACTIVE, HOLDING]),
    st.sampled_from([*map(int, Source), NO_CHUNK]),
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(events, st.booleans(), st.integers(0, 1)), min_size=1, max_size=40))
def test_bag_and_recovery_say_what_the_live_messages_said(steps: list[tuple[Said, bool, int]]) -> None:
    """Whatever comes, however it lies in blocks, also where many messages arrived in the same nanosecond."""
    at_ms, arrived, story = 0, 1, []
    about = Provenance("cell", "lift", (), (), 1, 1.0, joint_topic="/cell/joint_states")
    custom = {CUSTOM_KEY: json.dumps(dataclasses.asdict(about))}
    with TemporaryDirectory() as root:
        bags = [BagWriter(Path(root) / name, custom) for name in ("whole", "torn")]
        channels = [bag.add(Topic("/cell/executor/event", EVENT)) for bag in bags]
        for said, flush, later in steps:
            at_ms, arrived = at_ms + said.at_ms, arrived + later
            story.append(said._replace(at_ms=at_ms))
            for bag, channel in zip(bags, channels, strict=True):
                bag.write(channel, arrived, serialised(story[-1]))
                if flush:
                    bag.flush()
        whole, torn = bags
        whole.close(custom)
        torn.flush()
        torn.abort()
        recover(torn.directory)
        live = heard(story)
        for bag in bags:
            found = label_episode(bag.directory, "success")
            assert (found.interventions, found.policy_ran) == (live.spans, live.policy_ran)


def test_a_recovered_takeover_keeps_its_corrections(tmp_path: Path) -> None:
    about = Provenance("cell", "lift", (), (), 1, 1.0)
    bag = BagWriter(tmp_path / "one", {CUSTOM_KEY: json.dumps(dataclasses.asdict(about))})
    channel = bag.add(Topic("/executor/event", EVENT))
    story = [accepted(0, Source.POLICY, ACTIVE), Said(1000, "take_over", TAKEOVER), *shown(4000, 4020)]
    for said in story:
        bag.write(channel, said.at_ms + 1, serialised(said))
    bag.flush()
    bag.abort()
    recover(bag.directory, {"note": "kept"})
    found = label_episode(bag.directory, "success")
    assert found.interventions == ((4000 * MS, 4020 * MS),) and found.policy_ran and found.label == "success"
