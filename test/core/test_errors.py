# SPDX-License-Identifier: Apache-2.0
"""Every error is one of ours, and an unknown name is answered with what exists."""

import ast
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imagewam_ros
from imagewam_ros.core import errors
from imagewam_ros.core.errors import ImageWamError, unknown_name

OURS = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, ImageWamError)}
INVARIANTS = {"ValueError", "NotImplementedError", "FileNotFoundError", "SystemExit", "KeyboardInterrupt"}
"""What else may be raised by name: broken invariants of a value, and the ways to end a process."""
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)


def raised(path):
    """Names of the classes that a module raises by calling them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield node.exc.func.id, node.lineno


def modules():
    return sorted(Path(imagewam_ros.__file__).parent.rglob("*.py"))


def test_the_package_raises_its_own_errors():
    foreign = [
        f"{path.name}:{line} {name}"
        for path in modules()
        for name, line in raised(path)
        if name not in OURS | INVARIANTS and not name.islower() and not name.endswith(("TypeError", "Interrupted"))
    ]
    assert foreign == []


def test_every_error_is_raised_somewhere():
    used = {name for path in modules() for name, _ in raised(path)}
    assert OURS - {"ImageWamError"} - used == set()


@pytest.mark.parametrize("name", sorted(OURS))
def test_errors_say_what_they_are_for(name):
    assert inspect.getdoc(getattr(errors, name))
    assert issubclass(getattr(errors, name), ImageWamError)


@given(NAMES, st.lists(NAMES, max_size=6, unique=True))
def test_unknown_name_names_all_in_order(name, known):
    text = unknown_name("thing", name, known)
    assert text.startswith(f"unknown thing {name!r}")
    assert text.endswith("known: " + (", ".join(sorted(known)) or "none"))


@given(st.text("abcdefgh", min_size=5, max_size=10), st.integers(0, 4))
def test_one_dropped_letter_is_found(name, at):
    assert f"did you mean {name!r}?" in unknown_name("thing", name[:at] + name[at + 1 :], [name, "zzzzzzzzzz"])


def test_what_is_far_from_all_gets_no_guess():
    assert "did you mean" not in unknown_name("thing", "xyz", ["abc", "def"])


def test_any_iterable_will_do():
    assert unknown_name("thing", "c", iter(["b", "a"])) == "unknown thing 'c'; known: a, b"
