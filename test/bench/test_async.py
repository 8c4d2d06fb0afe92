# SPDX-License-Identifier: Apache-2.0
"""The next chunk is inferred while this one runs: whoever asks for it is never kept waiting."""

import threading

import pytest

from imagewam_ros.nodes.inference import InferenceThread

CHUNKS = 5
DEADLINE_S = 20.0


class Gated:
    """A policy that infers until it is let go."""

    def __init__(self):
        self.entered, self.gate = threading.Event(), threading.Event()
        self.rehearsed = []

    def rehearse(self, text):
        self.rehearsed.append(text)

    def infer(self, observation, seed, running=None, delay_ns=0):
        self.entered.set()
        assert self.gate.wait(DEADLINE_S)
        self.entered.clear()
        self.gate.clear()
        return seed


@pytest.fixture
def thread():
    made = InferenceThread(Gated)
    yield made
    made.close()


def test_asking_returns_while_the_policy_infers(thread):
    chunks = []
    for seed in range(CHUNKS):
        done = threading.Event()
        thread.infer(None, seed, chunks.append, done.set)
        assert thread.policy.entered.wait(DEADLINE_S)
        assert not done.is_set()
        assert chunks == list(range(seed)), "a chunk came before its inference ended"
        thread.policy.gate.set()
        assert done.wait(DEADLINE_S)
        thread.outcome()
    assert chunks == list(range(CHUNKS))


def test_an_instruction_is_rehearsed_before_it_counts(thread):
    ended = threading.Event()
    assert thread.instruct("lift", ended.set).result(DEADLINE_S) is None
    assert thread.policy.rehearsed == ["lift"] and ended.wait(DEADLINE_S)
