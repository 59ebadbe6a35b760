"""Names for SNS and SQS, the URL of a channel on AWS, and events as text."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.adapters.aws.document import is_event, read, write
from headwater.adapters.aws.names import Names, message_group, tagged, tags
from headwater.adapters.aws.options import AwsOptions, parse_url
from headwater.channel import Publication
from headwater.errors import ConfigurationError, SchemaError

NAMES = Names("shop-", fifo=True)
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)
alike = st.text("ab-._0", min_size=1, max_size=8)


def test_a_plain_name_is_kept() -> None:
    assert NAMES.topic("orders.sales") == "shop-orders_sales.fifo"
    assert NAMES.queue("books", "orders.sales") == "shop-books--orders_sales.fifo"
    assert Names("", fifo=False).topic("orders") == "orders"


@given(st.tuples(text | alike, text | alike), st.tuples(text | alike, text | alike))
@example(("a", "b_c"), ("a", "b.c"))
@example(("a-", "b"), ("a", "-b"))
@example(("a--b", "c"), ("a", "b--c"))
def test_no_two_are_called_the_same_and_all_are_names(one: tuple[str, str], two: tuple[str, str]) -> None:
    for pair in (one, two):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,75}\.fifo", NAMES.queue(*pair))
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,251}\.fifo", NAMES.topic(pair[0]))
    assert (NAMES.queue(*one) == NAMES.queue(*two)) == (one == two)
    assert (NAMES.topic(one[0]) == NAMES.topic(two[0])) == (one[0] == two[0])


def test_a_name_that_looks_like_a_digest_is_not_that_of_another() -> None:
    found = NAMES.topic("Straße")
    assert NAMES.topic(found.removeprefix("shop-").removesuffix(".fifo")) != found


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_queue_says_whose_it_is(group: str, topic: str) -> None:
    try:
        found = tags(group, topic)
    except (ConfigurationError, UnicodeEncodeError):
        return
    assert all(re.fullmatch(r"[A-Za-z0-9_.=-]{0,256}", value) for value in found.values())
    assert tagged(found) == (group, topic)


def test_a_queue_of_others_is_nobodys_and_a_name_has_an_end() -> None:
    assert tagged({"team": "shop"}) is None
    with pytest.raises(ConfigurationError, match="shorter name"):
        tags("g" * 300, "t")


@given(text)
def test_a_message_group_is_one_that_sqs_takes(key: str) -> None:
    assert re.fullmatch(r"[!-~]{1,128}", message_group(key))


# --- the URL ---


def test_a_url_says_where_and_how() -> None:
    url = "aws://?region=eu-west-1&prefix=shop-&visibility=60&poll=20&standard=yes&account=123456789012"
    assert parse_url(url) == AwsOptions(
        region="eu-west-1", prefix="shop-", visibility=60, poll=20, standard=True, account="123456789012"
    )
    assert parse_url("aws://") == AwsOptions()
    assert parse_url("aws://?visibility=3").poll == 1
    assert parse_url("aws://?visibility=60").poll == 5
    assert parse_url("aws:///?endpoint=http://127.0.0.1:5000").endpoint == "http://127.0.0.1:5000"
    assert parse_url("aws://?endpoint=http://moto:5000&plaintext=yes").plaintext


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("aws://key:secret@?region=eu-west-1", "holds no credentials"),
        ("aws://eu-west-1", "names no channel"),
        ("aws://?secret_key=secret", "no option"),
        ("aws://?poll=0", "from 1 to 20"),
        ("aws://?poll=20", "two polls"),
        ("aws://?visibility=many", "whole seconds"),
        ("aws://?visibility=99999999999999999999", "whole seconds"),
        ("aws://?standard=maybe", "standard=yes"),
        ("aws://?prefix=a.b", "cannot begin"),
        ("aws://?account=1", "twelve digits"),
        ("aws://?region=EU%20west", "no region"),
        ("aws://?endpoint=127.0.0.1:5000", "no URL of a server"),
        ("aws://?endpoint=http://me:secret@127.0.0.1", "no URL of a server"),
        ("aws://?endpoint=http://[::1", "no URL of a server"),
        ("aws://?endpoint=http://moto:5000", "plain text"),
        ("aws://?endpoint=http://127.0.0.1.evil.test", "plain text"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_and_not_repeated(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value).replace("secret_key", "")


# --- the text ---

headers = st.dictionaries(
    text.filter(lambda name: name not in ("partitionkey", "data", "data_base64")), st.text(max_size=30)
)
forbidden = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What SQS does not take."""


@given(st.text(), headers, st.binary() | st.text().map(lambda one: json.dumps(one).encode()))
@example("k", {}, b' {"a": 1}')
@example("k", {}, '{"a": "\uffff"}'.encode())
@example("k", {"datacontenttype": "text/plain"}, b'"quoted"')
@example("k", {"datacontenttype": "application/vnd.shop+json; charset=utf-8"}, b'{"a":1.50}')
def test_a_publication_comes_out_of_its_text_as_it_went_in(key: str, given: dict[str, str], body: bytes) -> None:
    try:
        found = write(Publication("orders", key, given, body))
    except SchemaError:
        assert re.search("[\ud800-\udfff]", key + "".join([*given, *given.values()]))
        return
    assert not forbidden.search(found)
    assert read(found) == (key, given, body)
    json.loads(found)


def test_an_event_is_what_any_reader_of_cloudevents_expects() -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.Placed"}
    placed = json.loads(write(Publication("orders", "o1", attributes, b'{"cents":120}')))
    assert placed == attributes | {"partitionkey": "o1", "data": {"cents": 120}}
    picture = json.loads(write(Publication("orders", "o1", attributes | {"datacontenttype": "image/png"}, b"\x89")))
    assert picture["data_base64"] == "iQ=="


def test_an_event_of_somebody_else_is_read() -> None:
    told = '{"specversion":"1.0","id":"1","typeversion":2,"hot":true,"gone":null,"datacontenttype":"text/plain","data":"hi"}'
    assert is_event(told, "")
    assert read(told) == (
        None,
        {"specversion": "1.0", "id": "1", "typeversion": "2", "hot": "true", "datacontenttype": "text/plain"},
        b"hi",
    )
    assert not is_event('{"order": 1}', "")
    with pytest.raises(SchemaError, match="no CloudEvent"):
        read('{"specversion": {"major": 1}}')


def test_a_header_that_cloudevents_keeps_for_itself_is_refused() -> None:
    with pytest.raises(SchemaError, match="partitionkey"):
        write(Publication("orders", "k", {"partitionkey": "p"}, b""))
