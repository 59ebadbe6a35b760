"""The examples of a page: files that it shows, and what is run in their folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(page: str) -> dict[str, str]:
    """The Python files that a page of the project shows, by the names in their first lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL))


def write(shown: dict[str, str], folder: Path) -> Path:
    """Write the files to a folder."""
    for name, text in shown.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
