"""What goes wrong outside: each is one clear line that says what to do, and its exit code; nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

SERVICE = """
from headwater import Aggregate, App, Command, Event, decide, evolve

class Open(Command):
    account_id: str
    owner: str = ""

class Opened(Event):
    account_id: str
    owner: str

class Account(Aggregate, key="account_id"):
    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.account_id, command.owner)

    @evolve
    def opened(self, event: Opened) -> None:
        return

app = App("bank")
app.add(Account)
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bank.py").write_text(SERVICE, encoding="utf-8")
    return tmp_path


def start(folder: Path, *command: str, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    """A command in the folder, with nothing of Headwater in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=data, capture_output=True, timeout=50, check=False
    )
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def headwater(folder: Path) -> Run:
    def run(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[str]:
        return start(folder, sys.executable, "-m", "headwater", *words, data=data)

    return run


def refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """It ended with the code, printed nothing, and one line of stderr is the error."""
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    for words in said:
        assert words in line
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def events_in(path: Path) -> int:
    connection = apsw.Connection(str(path))
    try:
        [(count,)] = connection.execute("SELECT count(*) FROM events").fetchall()
        return int(str(count))
    finally:
        connection.close()


# --- URLs, extras, apps ---


def test_an_extra_that_is_not_installed_is_named(folder: Path) -> None:
    missing = folder / "missing"
    missing.mkdir()
    (missing / "psycopg.py").write_text("raise ModuleNotFoundError('it is not there', name='psycopg')")
    found = "import sys; from headwater.cli import main; sys.exit(main())"
    words = ("events", "list", "--store", "postgresql://ada:secret@host/bank")
    done = start(folder, sys.executable, "-c", f"import sys; sys.path.insert(0, {str(missing)!r}); {found}", *words)
    refused(done, 3, "postgresql:// needs psycopg, which is not installed; run: pip install 'headwater[postgres]'")


@pytest.mark.parametrize("command", [("run", "bank:app"), ("events", "list"), ("consumers",), ("db", "init")])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://host/x", ("no store has the scheme 'nosuch'", "known: memory, postgres, postgresql, sqlite")),
        ("postgresql://ada:secret@127.0.0.1:1/bank", ("postgresql://127.0.0.1:1/bank cannot be reached",)),
        ("bank.db", ("is not a URL", "write for example sqlite:///orders.db")),
        ("sqlite://bank.db", ("write sqlite:///relative/path.db or sqlite:////absolute/path.db",)),
        ("sqlite:///", ("names no SQLite file",)),
        ("sqlite:////nowhere/at/all.db", ()),
        ("://", ("is not a URL",)),
    ],
)
def test_a_url_that_cannot_be_used(
    headwater: Run, folder: Path, command: tuple[str, ...], url: str, said: tuple[str, ...]
) -> None:
    done = headwater(*command, "--store", url)
    missing = url.startswith("sqlite:////nowhere") and command[0] not in ("run", "db")
    refused(done, 4 if "127.0.0.1" in url else 5 if missing else 3, *said)
    assert "secret" not in done.stderr
    assert [one.name for one in folder.glob("*.db*")] == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://x", "no channel has the scheme"),
        ("kafka://", "no host and port"),
        ("sqlite:///c.db?speed=9", "no option of"),
    ],
)
def test_a_channel_that_cannot_be_used(headwater: Run, url: str, said: str) -> None:
    refused(headwater("run", "bank:app", "--channel", url), 3, said)


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("nowhere:app", 3, "there is no module nowhere"),
        ("bank:ap", 3, "its apps are: bank:app"),
        ("bank:Account", 3, "it is no App"),
        ("bank", 2, "write for example orders.app:app"),
        ("bank.py:app", 2, "write its module: bank:app"),
    ],
)
def test_an_app_that_is_not_there(headwater: Run, target: str, code: int, said: str) -> None:
    refused(headwater("run", target), code, said)
    refused(headwater("command", "send", "--app", target, "Open", "{}"), code, said)


# --- commands from outside ---


@pytest.mark.parametrize(
    ("name", "data", "code", "said"),
    [
        ("Nope", b"{}", 5, "it knows: bank.Open"),
        ("Open", b"\xff\xfe{", 2, "not strict JSON"),
        ("Open", b"account_id=a", 2, "not strict JSON"),
        ("Open", b'{"account_id": "a"', 2, "not strict JSON"),
        ("Open", b'{"account_id": 5}', 2, "Expected `str`, got `int`"),
        ("Open", b'{"account_id": "a", "nmae": "b"}', 2, "has no field 'nmae'; it has: account_id, owner"),
        ("Open", b'{"account_id": "a", "account_id": "b"}', 2, "the same key twice"),
        ("Open", b'{"account_id": ' + b"[" * 2000 + b"]" * 2000 + b"}", 2, "nested deeper than 64 levels"),
        ("Open", b'{"account_id": "a", "owner": "' + b"x" * (2 << 20) + b'"}', 2, "over the limit of 1,048,576"),
        ("Open", b"", 2, "not strict JSON"),
    ],
)
def test_a_command_that_is_none(headwater: Run, folder: Path, name: str, data: bytes, code: int, said: str) -> None:
    assert headwater("command", "send", "bank:app", "Open", '{"account_id": "first"}').returncode == 0
    refused(headwater("command", "send", "bank:app", name, "--file", "-", data=data), code, said)
    assert events_in(folder / "bank.db") == 1
    assert headwater("command", "send", "bank:app", "Open", '{"account_id": "next"}').returncode == 0


# --- files ---


def test_a_database_that_is_not_there_is_not_made_by_looking(headwater: Run, folder: Path) -> None:
    for command in (("events", "list"), ("consumers",), ("dead-letters", "list"), ("db", "verify"), ("db", "status")):
        refused(headwater(*command, "--store", "sqlite:///none.db"), 5, "there is no database at", "headwater db init")
    assert not (folder / "none.db").exists()


@pytest.mark.parametrize("content", [b"", b"these are no pages of a database " * 200])
def test_a_file_that_is_something_else(headwater: Run, folder: Path, content: bytes) -> None:
    (folder / "other.db").write_bytes(content)
    done = headwater("events", "list", "--store", "sqlite:///other.db")
    refused(done, 3 if content else 5, "other.db")
    if content:
        assert (folder / "other.db").read_bytes() == content


def test_a_channel_is_no_database(headwater: Run, folder: Path) -> None:
    connection = apsw.Connection(str(folder / "channel.db"))
    connection.execute("CREATE TABLE headwater_schema (component TEXT, version INTEGER, applied INTEGER)")
    connection.close()
    refused(headwater("events", "list", "--store", "sqlite:///channel.db"), 5, "no database of Headwater")


def test_a_database_of_a_newer_schema(headwater: Run, folder: Path) -> None:
    assert headwater("command", "send", "bank:app", "Open", '{"account_id": "a"}').returncode == 0
    connection = apsw.Connection(str(folder / "bank.db"))
    connection.execute("INSERT INTO headwater_schema VALUES ('database', 99, 0)")
    connection.close()
    for command in (
        ("run", "bank:app"),
        ("events", "list", "--app", "bank:app"),
        ("db", "upgrade", "--app", "bank:app"),
    ):
        refused(headwater(*command), 3, "version 99", "upgrade headwater")
    refused(headwater("command", "send", "bank:app", "Open", '{"account_id": "b"}'), 3, "upgrade headwater")
    status = headwater("db", "status", "--store", "sqlite:///bank.db", "--json")
    assert (status.returncode, json.loads(status.stdout)["current"]) == (7, False)
    assert events_in(folder / "bank.db") == 1


# --- disks: in a mount namespace of its own, which ends with its process ---

PRIVATE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
ON_A_SMALL_DISK = """
set -e
mkdir disk
mount -t tmpfs -o size=700k tmpfs disk
say() { "$PYTHON" -m headwater "$@"; }
"""


def on_a_small_disk(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a disk of 700 KiB in `disk`; `say` is headwater."""
    assert shutil.which("unshare")
    return start(folder, *PRIVATE, "env", f"PYTHON={sys.executable}", "sh", "-c", ON_A_SMALL_DISK + script)


def test_a_full_disk(folder: Path) -> None:
    big = json.dumps({"account_id": "a", "owner": "x" * 60_000})
    (folder / "big.json").write_text(big)
    done = on_a_small_disk(
        folder,
        """
        store=sqlite:///disk/bank.db
        say db init --store $store >/dev/null
        sent=0
        while say command send bank:app Open --file big.json --store $store >/dev/null 2>error; do sent=$((sent + 1)); done
        cat error >&2
        say command send bank:app Open --file big.json --store $store >/dev/null 2>/dev/null || echo code $?
        echo sent $sent
        say db sql --store $store 'select count(*) from events'
        say db verify --store $store
        mount -o remount,size=20m disk
        say command send bank:app Open --file big.json --store $store >/dev/null
        say db sql --store $store 'select count(*) from events'
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: no space is left for ")
    assert "free some space" in done.stderr
    assert done.stderr.count("\n") == 1
    code, sent, stored, whole, after = done.stdout.splitlines()
    assert code == "code 4"
    assert int(sent.split()[1]) > 1
    assert (stored, whole, int(after)) == (sent.split()[1], "whole", int(stored) + 1)


def test_a_disk_too_small_to_begin(folder: Path) -> None:
    script = "head -c 640k /dev/zero > disk/fill; for words in 'run bank:app' 'db init'; do "
    done = on_a_small_disk(folder, script + "say $words --store sqlite:///disk/bank.db 2>&1 || echo code $?; done")
    first, one, second, two = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert (one, two) == ("code 4", "code 4")
    for line in (first, second):
        assert line.startswith("error: no space is left for ")


def test_a_file_that_cannot_be_written(folder: Path) -> None:
    done = on_a_small_disk(
        folder,
        """
        store=sqlite:///disk/bank.db
        say command send bank:app Open '{"account_id": "a"}' --store $store >/dev/null 2>&1 || say db init --store $store >/dev/null
        say command send bank:app Open '{"account_id": "b"}' --store $store >/dev/null
        mount -o remount,ro disk
        for words in 'run bank:app' 'command send bank:app Open {"account_id":"c"}' 'db init'; do
            say $words --store $store 2>&1 || echo code $?
        done
        mount -o remount,rw disk
        say db verify --store $store
        say events list --store $store --json
        """,
    )
    *refusals, whole, listed = [line for line in done.stdout.splitlines() if not line.startswith('{"time')]
    assert [line for line in refusals if line.startswith("code")] == ["code 4"] * 3
    for line in refusals[::2]:
        assert line.startswith("error: ")
        assert "cannot be written: check the permissions of the file and of its folder" in line
    assert whole == "whole"
    assert [one["stream"] for one in json.loads(listed)["events"]] == ["bank.Account/b"]
