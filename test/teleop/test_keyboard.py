# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a pseudo-terminal."""

import os
import pty
import termios
import time

import pytest

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.jog import LEFT, RIGHT
from imagewam_ros.teleop.keyboard import KEYS, Keyboard

MS = 1_000_000


@pytest.fixture
def terminal():
    fingers, screen = pty.openpty()
    yield fingers, os.ttyname(screen), screen
    for file in (fingers, screen):
        os.close(file)


@pytest.fixture
def keyboard(terminal):
    keyboard = Keyboard(terminal[1])
    yield keyboard
    keyboard.close()


def typed(terminal, keyboard, text, now_ns=0):
    os.write(terminal[0], text)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        jog = keyboard.read(now_ns)
        if jog.enabled.any():
            return jog
    return jog


def test_a_press_moves_for_a_moment(terminal, keyboard):
    jog = typed(terminal, keyboard, b"w")
    assert jog.linear[LEFT].tolist() == [1, 0, 0]
    assert jog.enabled.tolist() == [True, False]
    assert keyboard.read(149 * MS).enabled.any()
    assert not keyboard.read(150 * MS).enabled.any()


@pytest.mark.parametrize("letter", sorted(KEYS))
def test_every_key_wishes_what_the_table_says(terminal, keyboard, letter):
    jog, key = typed(terminal, keyboard, letter.encode()), KEYS[letter]
    part = getattr(jog, key.part)[LEFT]
    assert (part if key.part == "gripper" else part[key.axis]) == key.sign


def test_opposite_keys_cancel_and_two_directions_add(terminal, keyboard):
    jog = typed(terminal, keyboard, b"wsar")
    assert jog.linear[LEFT].tolist() == [0, 1, 1]


def test_tab_goes_through_the_arms(terminal, keyboard):
    assert typed(terminal, keyboard, b"\tw").enabled.tolist() == [False, True]
    jog = typed(terminal, keyboard, b"\tw")
    assert jog.enabled.tolist() == [True, True]
    assert jog.linear[RIGHT].tolist() == [1, 0, 0]


def test_space_stops_at_once(terminal, keyboard):
    typed(terminal, keyboard, b"w")
    os.write(terminal[0], b" ")
    deadline = time.monotonic() + 5.0
    while keyboard.read(0).enabled.any():
        assert time.monotonic() < deadline


def test_arrow_keys_are_no_letters(terminal, keyboard):
    os.write(terminal[0], b"\x1b[A\x1b[D\x1bOA")
    assert typed(terminal, keyboard, b"w").linear[LEFT].tolist() == [1, 0, 0]


def test_the_terminal_gets_its_settings_back(terminal):
    before = termios.tcgetattr(terminal[2])
    keyboard = Keyboard(terminal[1])
    assert termios.tcgetattr(terminal[2]) != before
    keyboard.close()
    keyboard.close()
    assert termios.tcgetattr(terminal[2]) == before


def test_no_terminal_is_explained(tmp_path):
    with pytest.raises(DeviceError, match=r"no terminal at .*; start teleop_node in a terminal of its own"):
        Keyboard(str(tmp_path / "tty"))
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="is not a terminal; give the one you type in, see tty"):
        Keyboard(str(tmp_path / "file"))


def test_a_closed_terminal_is_reported():
    fingers, screen = pty.openpty()
    keyboard = Keyboard(os.ttyname(screen))
    os.close(screen)
    os.close(fingers)
    with pytest.raises(DeviceError, match="the terminal is gone"):
        keyboard.read(0)
    keyboard.close()
