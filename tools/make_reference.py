# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference from the code: commands, interfaces, nodes, and what each room offers; and the policy for SROS2.

    .venv/bin/python tools/make_reference.py            writes all pages
    .venv/bin/python tools/make_reference.py --check    exit code 1 and the names of pages that are out of date

The page of the nodes asks nodes that are built for it, so it needs ROS 2.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from imagewam_ros import cli, graph

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("core", "model", "kinematics", "control", "teleop", "data", "sim", "cameras", "training", "evaluation")
MADE = "Made by `make reference` from the code; do not edit.\n"


def main() -> int:
    """Write or check all pages. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/reference from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the pages that are out of date")
    check = parser.parse_args().check
    old = [name for name, make in pages().items() if not up_to_date(ROOT / name, make(), write=not check)]
    print("\n".join(f"{'out of date' if check else 'written'}: {name}" for name in old) or "up to date")
    return int(check and bool(old))


def pages() -> dict[str, Callable[[], str]]:
    """Return the makers of all files by path."""
    import access_policy  # beside this file; both need rclpy
    import reference_nodes

    live = {"docs/reference/nodes.md": reference_nodes.page, "config/security/cell.policy.xml": access_policy.policy}
    return {**still_pages(), **live}


def still_pages() -> dict[str, Callable[[], str]]:
    """Return the makers of the pages that need no ROS."""
    makers = {"commands": commands, "interfaces": interfaces, "api": api}
    return {f"docs/reference/{name}.md": make for name, make in makers.items()}


def up_to_date(path: Path, text: str, *, write: bool) -> bool:
    """Tell whether a page holds `text`; with `write` make it so."""
    same = path.is_file() and path.read_text(encoding="utf8") == text
    if write and not same:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    return same


def commands() -> str:
    """Every command of `imagewam` with its options."""
    lines = ["# Commands", "", MADE]
    for name, command in cli.COMMANDS.items():
        lines += [f"## imagewam {name}", "", f"{command.summary.capitalize()}.", "", "```", command.example, "```", ""]
        parser = argparse.ArgumentParser()
        importlib.import_module(command.module).add_arguments(parser)
        lines += [*options(parser), ""]
    lines += [
        "## Arguments of the launch",
        "",
        "`ros2 launch imagewam_ros dual_arm.launch.py` and `imagewam up` take:",
        "",
    ]
    lines += table("argument", "default", "choices", "meaning")
    lines += [row(f"`{a.name}`", quoted(a.default), ", ".join(a.choices), a.description) for a in graph.ARGUMENTS]
    return "\n".join(lines) + "\n"


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Rows for the options of a parser, and of its own commands below it."""
    mine = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    below = [action for action in mine if isinstance(action, argparse._SubParsersAction)]
    plain = [action for action in mine if action not in below]
    if plain:
        yield from table("option", "meaning")
    for action in plain:
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
        text = (action.help or "").replace("%(default)s", str(action.default))
        if "(default" not in text and action.default not in (None, argparse.SUPPRESS, False, []):
            text += f" (default: {action.default})"
        yield row(names, text + (f" One of {', '.join(map(str, action.choices))}." if action.choices else ""))
    for action in below:
        for name, inner in action.choices.items():
            yield from ("", f"**{name}**", "", *options(inner))


def quoted(value: object) -> str:
    """A value as YAML would have it."""
    if value == "":
        return '`""`'
    shown = str(value).lower() if isinstance(value, bool) else list(value) if isinstance(value, tuple) else value
    return f"`{shown}`"


def table(*heads: str) -> list[str]:
    """The first two lines of a table."""
    return [row(*heads), row(*("---" for _ in heads))]


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def interfaces() -> str:
    """Every message, service and action as it is written."""
    lines = ["# Interfaces", "", MADE]
    for folder in ("msg", "srv", "action"):
        for path in sorted((ROOT / folder).iterdir()):
            lines += [
                f"## imagewam_ros/{folder}/{path.stem}",
                "",
                "```",
                path.read_text(encoding="utf8").strip(),
                "```",
                "",
            ]
    return "\n".join(lines)


def api() -> str:
    """What the rooms offer: public classes and functions, one line each, and `policy.py`."""
    lines = ["# What each room offers", "", MADE]
    lines += ["For programs that use the package as a library. Rooms and what they may import: ARCHITECTURE.md.", ""]
    for room in (*ROOMS, "policy.py"):
        path = ROOT / "imagewam_ros" / room
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        lines += [f"## {path.stem}", ""]
        for file in files:
            lines += module(file)
    return "\n".join(lines)


def module(path: Path) -> Iterator[str]:
    """The public names of one file, nothing where there are none."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    found = [f"- {signature(node)}: {first_line(node)}" for node in tree.body if is_public(node)]
    if found:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield from (f"### `{name}`", "", first_line(tree), "", *found, "")


def is_public(node: ast.stmt) -> bool:
    """Whether a statement defines a class or function for others."""
    return isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")


def signature(node: ast.stmt) -> str:
    """A class's or function's name, with the names of its arguments."""
    if isinstance(node, ast.ClassDef):
        return f"class `{node.name}`"
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    names += [f"*{given.vararg.arg}"] if given.vararg else ["*"] * bool(given.kwonlyargs)
    names += [argument.arg for argument in given.kwonlyargs]
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"`{node.name}({', '.join(names)})`"


def first_line(node: ast.AST) -> str:
    """The first line of a docstring."""
    text = ast.get_docstring(node) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else ""
    return (text or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
