"""The commands of the page on large messages, on moto's server: what SNS does not take arrives, also after its claim was deleted."""

from __future__ import annotations

import time
from pathlib import Path

from tests.docs.desk import Desk, commands
from tests.servers.aws import Endpoint

PAGE = "docs/how-to/send-large-messages.md"


def test_the_commands_of_the_page_do_what_it_says(aws: Endpoint, tmp_path: Path) -> None:
    desk = Desk(tmp_path, PAGE, aws.channel(poll=1))
    claims = tmp_path / "claims"
    claims.mkdir()
    desk.environment |= {"HEADWATER_CLAIMS": claims.as_uri()}
    apply_scans, apply_library, run_library, run_scans, republish = commands(PAGE)
    desk.done(apply_scans)
    desk.done(apply_library)
    with desk.running(run_scans):
        desk.done('command send --app scans:app Scan {"scan_id":"s1","pages":100}')
        end = time.monotonic() + 20
        while not list(claims.iterdir()):
            assert time.monotonic() < end
            time.sleep(0.05)
    [claim] = claims.iterdir()
    claim.unlink()
    desk.done(republish)
    with desk.running(run_library) as library:
        assert library.stdout is not None
        assert library.stdout.readline() == "s1: 420,000 characters\n"
