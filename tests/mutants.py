"""What `./dev mutate` found: killed and tried, by module; 1 where a module falls short."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ENOUGH = 0.90
FOUND = Path("mutants/src/headwater")


def main() -> int:
    short = False
    for meta in sorted(FOUND.glob("*.meta")):
        outcomes = json.loads(meta.read_text())["exit_code_by_key"].values()
        killed = sum(outcome not in (0, None) for outcome in outcomes)
        short = short or killed < ENOUGH * len(outcomes)
        print(f"{meta.name.removesuffix('.py.meta')}: {killed} of {len(outcomes)} killed, {killed / len(outcomes):.1%}")
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
