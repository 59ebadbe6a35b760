"""The command line as a whole: help, laziness, exit codes, one line for what goes wrong, and what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from headwater import errors
from headwater.cli import COMMANDS, main
from headwater.cli.failures import code_of, failed, line_of
from headwater.cli.output import print_facts, print_json, print_payload, print_table, safe


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


# --- help ---


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in shown
        assert line in shown
    assert "Exit codes" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "Usage: headwater" in capsys.readouterr().out


def subcommands() -> list[list[str]]:
    found = []
    root = click.Context(click.Group())
    for name, (module, _) in COMMANDS.items():
        command = __import__(f"headwater.cli.{module}", fromlist=["command"]).command
        if isinstance(command, click.Group):
            found += [[name, one] for one in command.list_commands(root)]
        elif name not in ("run",):
            found.append([name])
    return found


@pytest.mark.parametrize("words", subcommands(), ids=" ".join)
def test_every_command_but_run_takes_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_help_imports_no_command_and_no_driver() -> None:
    code = "import sys; from headwater.cli import main; main(['--help']); print([one for one in sys.modules], file=sys.stderr)"
    loaded = python("-c", code).stderr
    for module in ("rich", "apsw", "headwater.operations", "headwater.cli.run", "headwater.cli.output"):
        assert f"'{module}'" not in loaded


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("headwater 0.")


# --- exit codes ---


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.HeadwaterError("x"), 1),
        (errors.SchemaError("x"), 1),
        (errors.Unknown("k"), 1),
        (errors.Stale("x"), 1),
        (ValueError("x"), 1),
        (click.UsageError("x"), 2),
        (errors.ConfigurationError("x"), 3),
        (errors.MissingExtra("x"), 3),
        (errors.SchemaMismatch("x"), 3),
        (errors.DatabaseError("x"), 4),
        (errors.DatabaseFull("x"), 4),
        (errors.DatabaseReadOnly("x"), 4),
        (errors.ChannelError("x"), 4),
        (errors.NotFound("x"), 5),
        (errors.Conflict("x"), 6),
        (errors.KeyReused("x"), 6),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nope"], 2, "error: No such command 'nope'; see `headwater --help`"),
        (["events", "nope"], 2, "error: No such command 'nope'; see `headwater events --help`"),
        (["events", "list", "--limit", "0"], 2, "error: Invalid value for '--limit'"),
        (["events", "list", "--nope"], 2, "error: No such option"),
        (["events", "show", "--store", "sqlite:///x.db"], 2, "error: Missing argument 'EVENT'"),
        (["aggregate", "show", "a:b", "x"], 2, "error: expected [MODULE:APP] CATEGORY KEY"),
        (["command", "send", "a:b"], 2, "error: expected [MODULE:APP] TYPE [JSON]"),
        (
            ["aggregate", "show", "a:b", "C", "k", "--at", "noon"],
            2,
            "error: Invalid value for '--at': 'noon' is no time",
        ),
        (["dead-letters", "redrive", "--store", "sqlite:///x.db"], 2, "error: which? Give ids"),
        (
            ["dead-letters", "redrive", "c:s@1", "--done", "1", "--not-done"],
            2,
            "error: --done and --not-done contradict",
        ),
        (["dead-letters", "redrive", "--consumer", "c", "--not-done"], 2, "error: --done and --not-done are about one"),
        (["dead-letters", "discard", "c:s@1"], 2, "error: c:s@1 will be given up for good: say --yes"),
        (["consumers"], 2, "error: which database? Say --store URL or --app MODULE:APP"),
        (["projections", "list"], 2, "error: which app? Say --app MODULE:APP"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    words: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HEADWATER_STORE", "HEADWATER_STORE_FILE", "HEADWATER_APP"):
        monkeypatch.delenv(name, raising=False)
    assert main(words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said)
    assert shown.err.count("\n") == 1


def test_an_error_is_one_line_even_if_it_has_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(errors.ConfigurationError("first\n  second\x1b[2J")) == 3
    assert capsys.readouterr().err == "error: first second\\x1b[2J\n"


def test_a_fault_of_ours_is_one_line_too_unless_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADWATER_DEBUG", raising=False)
    assert failed(KeyError("a")) == 1
    assert capsys.readouterr().err == "error: KeyError: 'a'; set HEADWATER_DEBUG=1 to see where\n"
    monkeypatch.setenv("HEADWATER_DEBUG", "1")
    assert failed(KeyError("a")) == 1
    assert capsys.readouterr().err.startswith("KeyError")
    assert failed(errors.NotFound("x")) == 5
    assert "NotFound: x" in capsys.readouterr().err


def test_an_interrupt_is_no_error() -> None:
    assert line_of(KeyboardInterrupt()) == "interrupted"


def test_a_closed_pipe_ends_the_command_quietly(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/a.db"
    assert main(["db", "init", "--store", store]) == 0
    command = f"'{sys.executable}' -m headwater db sql --store {store} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (1, "")


# --- what is printed ---


def printed(capsys: pytest.CaptureFixture[str], work: Callable[..., None], *arguments: Any, **options: Any) -> str:
    work(*arguments, **options)
    return capsys.readouterr().out


def test_a_table_is_plain_columns_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", 1, None), ("long name", 22, "x\ny")]
    assert printed(capsys, print_table, ("name", "n", "note"), rows, right=("n",)) == (
        "name        n  note\na           1\nlong name  22  x\\ny\n"
    )


def test_a_table_on_a_terminal_shows_all_and_obeys_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.cli.output.is_terminal", lambda: True)
    shown = printed(capsys, print_table, ("name",), [("[bold]plain[/bold]",), ("esc\x1b[2J",), ("x" * 500,)])
    assert "[bold]plain[/bold]" in shown
    assert "esc\\x1b[2J" in shown
    assert shown.count("x") == 501


def test_json_is_one_document_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, print_json, {"a": [1, "Ærø\n\x1b"], "b": Path("/x")})
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"a": [1, "Ærø\n\x1b"], "b": "/x"}


def test_payloads_are_indented_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, print_payload, {"a": [1], "b": "\x9b"}) == '{\n  "a": [\n    1\n  ],\n  "b": "\\x9b"\n}\n'
    assert printed(capsys, print_payload, "two\nlines\x1b") == "two\nlines\\x1b\n"


def test_facts_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, print_facts, [("a", 0), ("bcd", ""), ("ef", None), ("g", False)]) == "a    0\ng    False\n"


def test_safe_keeps_printable_text() -> None:
    assert safe("Ærø 😀") == "Ærø 😀"
    assert safe(None) == ""
    assert safe("a\u202eb") == "a\\u202eb"
