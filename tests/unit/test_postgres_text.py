"""Values as they are bound: what PostgreSQL reads back from an array is what was put in."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.adapters.postgres.text import escaped, plain


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        pytest.param(["a", ""], '{"a",""}', id="texts"),
        pytest.param(["NULL", "a,b", "{}", " "], '{"NULL","a,b","{}"," "}', id="texts that mean something in an array"),
        pytest.param(['say "so"', "back\\slash"], '{"say \\"so\\"","back\\\\slash"}', id="quotes and backslashes"),
        pytest.param(["a\0b", "\1"], '{"a\1\1b","\1\2"}', id="NUL and what stands for it"),
        pytest.param([1, -2, 2**62], "{1,-2,4611686018427387904}", id="whole numbers"),
        pytest.param([b"", b"\x00\xff"], '{"\\\\x","\\\\x00ff"}', id="bytes"),
        pytest.param([True, False], [True, False], id="booleans are left to the driver"),
        pytest.param(["a", None], ["a", None], id="as are those with NULL"),
        pytest.param([1, 2.5], [1, 2.5], id="and mixtures"),
        pytest.param([], [], id="and those of nothing"),
    ],
)
def test_a_list_is_bound_as_postgresql_writes_an_array(values: list[Any], bound: Any) -> None:
    assert escaped([values]) == [bound]


def test_rows_are_read_as_they_were_bound() -> None:
    rows = [(1, "a\1\1b", None, b"\1\1"), (2, "\1\2", "plain", b"")]
    assert plain(rows) == [(1, "a\0b", None, b"\1\1"), (2, "\1", "plain", b"")]
    unmarked: list[tuple[Any, ...]] = [(1, "plain", None)]
    assert plain(unmarked) is unmarked
    assert plain([]) == []
