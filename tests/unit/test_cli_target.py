"""What a command works on: apps by name, stores by URL, and what is said where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headwater import App
from headwater.cli.target import Where, load_app
from headwater.errors import ConfigurationError

APP = "from headwater import App\napp = App('bank', store='sqlite:///own.db')\nclass Box:\n    app = app\nnothing = 1\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of its own, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("HEADWATER_STORE", "HEADWATER_STORE_FILE", "HEADWATER_CHANNEL", "HEADWATER_APP"):
        monkeypatch.delenv(name, raising=False)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("target", ["cli_bank:app", "cli_bank:Box.app", "cli_pack.bank:app"])
def test_an_app_is_found_in_the_working_folder(target: str) -> None:
    write("cli_bank.py", APP)
    write("cli_pack/bank.py", APP)
    found = load_app(target)
    assert isinstance(found, App)
    assert found.name == "bank"


@pytest.mark.parametrize("target", [None, "", "bank", "bank:", ":app", "a b:c", "bank:app:x", "./bank:app", "1:2"])
def test_what_names_no_app_is_wrong_usage(target: str | None) -> None:
    with pytest.raises(click.UsageError, match=r"orders\.app:app"):
        load_app(target)


def test_a_file_is_told_how_its_module_is_named() -> None:
    with pytest.raises(click.UsageError, match="write its module: bank:app"):
        load_app("bank.py:app")


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("", "cli_missing:app", "there is no module cli_missing in .* or among what is installed"),
        ("", "cli_missing.deep:app", "there is no module cli_missing.deep"),
        ("import cli_nowhere", "cli_broken:app", "imports cli_nowhere, which is not installed"),
        ("1 / 0", "cli_broken:app", r"ZeroDivisionError: division by zero \(.*cli_broken.py:1\)"),
        ("\n\ndef f(:", "cli_broken:app", r"SyntaxError: .*cli_broken.py:3\)"),
        ("import sys; sys.exit(3)", "cli_broken:app", "SystemExit: 3"),
        ("from headwater import App; App('No Name')", "cli_broken:app", "cli_broken: 'No Name' cannot name a service"),
        (APP, "cli_broken:ap", "has no 'ap'; its apps are: cli_broken:app"),
        (APP, "cli_broken:nothing", "has 'nothing', but it is no App; its apps are: cli_broken:app"),
        (APP, "cli_broken:Box.x", r"has no 'Box\.x'"),
    ],
)
def test_an_app_that_cannot_be_had_is_explained_in_one_line(text: str, target: str, said: str) -> None:
    write("cli_broken.py", text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_app(target)
    assert "\n" not in str(caught.value)


def test_urls_come_from_the_command_line_the_app_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    write("cli_bank.py", APP)
    assert Where("cli_bank:app").settings().store == "sqlite:///own.db"
    assert Where("cli_bank:app", "sqlite:///x.db").settings().store == "sqlite:///x.db"
    assert Where("cli_bank:app", channel="memory://c").settings().channel == "memory://c"
    monkeypatch.setenv("HEADWATER_STORE", "sqlite:///env.db")
    assert Where().settings().store == "sqlite:///env.db"
    assert Where("cli_bank:app").settings().store == "sqlite:///own.db"


def test_urls_come_from_the_project_too() -> None:
    write("pyproject.toml", "[tool.headwater]\nstore = 'sqlite:///project.db'\n")
    assert Where().settings().store == "sqlite:///project.db"


def test_without_any_the_command_asks_for_one() -> None:
    with pytest.raises(click.UsageError, match="Say --store URL or --app MODULE:APP"):
        Where().settings()
