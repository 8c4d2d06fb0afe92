# SPDX-License-Identifier: Apache-2.0
"""From which frames a training draws at which step: instructions that are held back, early frames drawn more often."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.data.dataset import Dataset, Demonstration
from imagewam_ros.training.metric import EARLY
from imagewam_ros.training.presets import TrainConfig
from imagewam_ros.training.run import phases

CONFIG = TrainConfig(steps=10, early=3, held_back=("lift blue",), hold_back_steps=4)


def demonstration(instruction: str, length: int) -> Demonstration:
    return Demonstration("one", instruction, 0, np.zeros((length, 2)), np.zeros((length, 2)))


def dataset() -> Dataset:
    lengths = {"lift red": EARLY + 6, "lift blue": EARLY + 2, "lift green": 5}
    return Dataset([demonstration(text, length) for text, length in lengths.items()], 2, np.ones(2, bool))


def test_what_is_held_back_comes_later_and_nothing_else_changes() -> None:
    data, rows = dataset(), np.arange(0, EARLY * 2 + 13, 2)
    (first, without), (last, every) = phases(data, rows, CONFIG)
    assert (first, last) == (4, 10)
    texts = np.array([d.instruction for d in data.demonstrations])[data.owner]
    assert set(texts[without]) == {"lift red", "lift green"}
    assert Counter(every.tolist()) == Counter({int(row): 3 if data.time[row] < EARLY else 1 for row in rows})
    assert np.array_equal(every[texts[every] != "lift blue"], without)


def test_without_holding_back_there_is_one_phase() -> None:
    data = dataset()
    config = replace(CONFIG, held_back=(), hold_back_steps=0)
    ((until, drawn),) = phases(data, np.arange(len(data)), config)
    assert until == 10 and set(drawn) == set(range(len(data)))


@pytest.mark.parametrize("change", [{"held_back": ()}, {"hold_back_steps": 0}, {"hold_back_steps": -1}])
def test_words_without_steps_and_steps_without_words_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="held back needs a number of steps"):
        replace(CONFIG, **change)


def test_an_instruction_that_nobody_demonstrated_is_named_with_those_that_are() -> None:
    config = replace(CONFIG, held_back=("lift bleu",))
    with pytest.raises(ConfigError, match="'lift bleu', which is to be held back.*lift blue, lift green, lift red"):
        list(phases(dataset(), np.arange(3), config))


def test_holding_back_everything_for_a_while_is_refused() -> None:
    config = replace(CONFIG, held_back=("lift blue", "lift red", "lift green"))
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        list(phases(dataset(), np.arange(3), config))
