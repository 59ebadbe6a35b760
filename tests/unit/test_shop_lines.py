from pathlib import Path

import pytest

from examples.shop.demo import SAMPLE
from examples.shop.lines import HEADER, MalformedLine, cents, parse, read_orders
from examples.shop.messages import PlaceOrder
from headwater import ConfigurationError

FIRST = " 00001 19970101  1   11.77\r\n"


def written(path: Path, *lines: str) -> Path:
    path.write_bytes("".join((" ".join(HEADER) + "\r\n", *lines)).encode("latin-1"))
    return path


def test_an_order_is_what_its_line_says_and_its_id_its_place() -> None:
    assert parse(7, FIRST) == PlaceOrder(7, "00001", "19970101", 1, 1177)


@pytest.mark.parametrize(
    ("dollars", "expected"), [("0.00", 0), ("0.07", 7), ("11.77", 1177), ("2500315.63", 250031563)]
)
def test_amounts_are_exact(dollars: str, expected: int) -> None:
    assert cents(dollars) == expected


def test_ids_count_from_the_line_after_the_header(tmp_path: Path) -> None:
    orders = read_orders(written(tmp_path / "orders.txt", FIRST, FIRST.replace("00001", "00002")))
    assert [(order.order_id, order.customer_id) for order in orders] == [(1, "00001"), (2, "00002")]


def test_a_limit_leaves_what_is_behind_it_unread(tmp_path: Path) -> None:
    assert len(read_orders(written(tmp_path / "orders.txt", FIRST, FIRST, "nonsense\n"), limit=2)) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (" 00001 19970101  1\r\n", "it has 3 fields, not 4"),
        ("\r\n", "it has 0 fields, not 4"),
        (" 00001 19970101  1 11.77 x\r\n", "it has 5 fields, not 4"),
        (" A0001 19970101  1 11.77\r\n", "'A0001' is not a customer id"),
        (" 00001 19970230  1 11.77\r\n", "'19970230' is not a date"),
        (" 00001 1997-1-1  1 11.77\r\n", "'1997-1-1' is not a date"),
        (" 00001 19970101  0 11.77\r\n", "'0' is not a number of CDs"),
        (" 00001 19970101 -1 11.77\r\n", "'-1' is not a number of CDs"),
        (" 00001 19970101  1 11.7\r\n", "'11.7' is not an amount in dollars"),
        (" 00001 19970101  1 11,77\r\n", "'11,77' is not an amount in dollars"),
        (" 00001 19970101  1 -1.00\r\n", "'-1.00' is not an amount in dollars"),
        (" 00001 19970101  1 1e3\r\n", "'1e3' is not an amount in dollars"),
        (" 00001 19970101  \u00b2 1.00\r\n", "it is not plain text"),
    ],
)
def test_a_malformed_line_is_named_with_what_is_expected(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(MalformedLine) as caught:
        read_orders(written(tmp_path / "orders.txt", FIRST, line, FIRST))
    said = str(caught.value)
    assert said.startswith(f"orders.txt, line 3: {reason}")
    assert said.endswith("expected: customer id, date as YYYYMMDD, number of CDs, dollars as 12.34")


@pytest.mark.parametrize("start", [b"", b" 00001 19970101  1   11.77\r\n", b"\xff\xfe"])
def test_the_header_must_be_there(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "orders.txt").write_bytes(start)
    with pytest.raises(MalformedLine, match=r"orders\.txt, line 1: the header should be 'customer_id date"):
        read_orders(tmp_path / "orders.txt")


def test_a_missing_file_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_orders(tmp_path / "nowhere.txt")


def test_the_sample_holds_whole_customers_and_an_order_of_nothing() -> None:
    orders = read_orders(SAMPLE)
    assert len(orders) == 2009
    assert len({order.customer_id for order in orders}) == 586
    assert [order.order_id for order in orders if order.cents == 0] == [1549]
