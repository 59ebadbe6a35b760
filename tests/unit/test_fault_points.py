"""The fault points stand where their list says, each once a flow or adapter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import headwater
from headwater import fault

SOURCE = Path(headwater.__file__).parent


def points(node: ast.AST, where: str = "") -> Iterator[tuple[str, str]]:
    """The name of each point in a tree, and the outermost function or method that it stands in."""
    for child in ast.iter_child_nodes(node):
        inner = where
        if isinstance(child, ast.ClassDef):
            inner = f"{child.name}."
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and where[-1:] in ("", "."):
            inner = f"{where}{child.name}"
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("fault.point"):
            yield ast.literal_eval(child.args[0]), where
        yield from points(child, inner)


def test_every_point_stands_once_where_the_list_says() -> None:
    listed = {(name, where) for name, line in fault.POINTS.items() for where in line.partition(":")[0].split(" and ")}
    files = {file: list(points(ast.parse(file.read_text(encoding="utf-8")))) for file in SOURCE.rglob("*.py")}
    assert {one for found in files.values() for one in found} == listed
    for folder in {file.parent for file in files}:
        names = [name for file, found in files.items() if file.parent == folder for name, _ in found]
        assert sorted(names) == sorted(set(names)), folder


def test_points_are_called_so_that_a_rig_can_replace_them() -> None:
    taken = [file.name for file in SOURCE.rglob("*.py") if "headwater.fault import" in file.read_text(encoding="utf-8")]
    assert taken == []


def test_a_point_does_nothing() -> None:
    assert [fault.point(name) for name in fault.POINTS] == [None] * len(fault.POINTS)
