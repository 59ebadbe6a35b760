"""The examples of the page on SQLAlchemy run as they stand, on a file and on a server, and are clean under both type checkers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "use-sqlalchemy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^(?:headwater|python) .+$", PAGE, re.MULTILINE)
HERE = "sqlite+headwater:///shop.db"


class Shop:
    """The files of the page in a folder, with the engine's URL in the place of the one that stands there."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.engine = store.replace("postgresql:", "postgresql+psycopg:").replace("sqlite:", "sqlite+headwater:")
        self.environment = os.environ | {"HEADWATER_STORE": store}
        for name, code in BLOCKS:
            assert HERE in code
            (folder / name).write_text(code.replace(HERE, self.engine), encoding="utf-8")

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str) -> str:
        with self.start(*words) as process:
            out, said = process.communicate(timeout=50)
        assert process.returncode == 0, said + out
        return out

    def invoices(self) -> list[tuple[str, int]]:
        engine = create_engine(self.engine)
        with engine.begin() as connection:
            rows = connection.execute(text("SELECT order_id, cents FROM invoices ORDER BY order_id"))
            found = [(row.order_id, row.cents) for row in rows]
        engine.dispose()
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    postgres = request.param == "postgresql"
    return Shop(tmp_path, request.getfixturevalue("postgres").make() if postgres else f"sqlite:///{tmp_path}/shop.db")


def test_what_the_script_places_is_billed_by_the_service_that_runs(shop: Shop) -> None:
    assert COMMANDS == ["headwater db init --app shop:app", "python shop.py", "headwater run shop:app"]
    init, place, run = (command.split()[1:] for command in COMMANDS)
    shop.run("-m", "headwater", *init)
    shop.run(*place)
    assert shop.invoices() == []
    with shop.start("-m", "headwater", *run) as service:
        try:
            deadline = time.monotonic() + 40
            while len(shop.invoices()) < 2 and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            service.send_signal(signal.SIGTERM)
            service.communicate(timeout=30)
    assert shop.invoices() == [("17", 4200), ("18", 900)]


def test_with_asyncio_all_runs_in_one_process(shop: Shop) -> None:
    assert shop.run("async_shop.py").split() == ["1", "invoice"]
    assert shop.invoices() == [("19", 700)]


@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "checker",
    [("mypy", "--strict", "--cache-dir", ".cache"), ("pyright", "--pythonpath", sys.executable)],
    ids=lambda checker: checker[0],
)
def test_they_are_clean_under(shop: Shop, checker: tuple[str, ...]) -> None:
    shop.run("-m", *checker, *sorted(name for name, _ in BLOCKS))
