"""The servers of compose.yaml are this machine's alone, and the commands it shows name them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

COMPOSE = (Path(__file__).parents[2] / "compose.yaml").read_text()
PUBLISHED = re.findall(r'ports: \["(.*?):(\d+):\d+"\]', COMPOSE)
URLS = re.findall(r"--(?:store|channel) '?(\S+?)'?(?:\s|$)", COMPOSE)


def test_every_server_is_published_to_this_machine_alone() -> None:
    assert len(PUBLISHED) == COMPOSE.count("image:")
    assert {host for host, _ in PUBLISHED} == {"127.0.0.1"}


@pytest.mark.parametrize("url", sorted(set(URLS)))
def test_every_url_it_shows_is_of_one_of_them(url: str) -> None:
    place = urlsplit(dict(parse_qsl(urlsplit(url).query)).get("endpoint", url))
    assert (place.hostname, str(place.port)) in PUBLISHED
