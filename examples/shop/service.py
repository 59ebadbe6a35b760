"""Runs one service as `headwater run` does, in a process that ends when its driver ends, even by `kill -9`.

    python -m examples.shop.service SERVICE FOLDER [OPTIONS OF headwater run]

Its standard input is a pipe that says nothing, and ends with the driver. The folder is there for the list of processes:
a later start of the demo knows its own by it.
"""

import os
import runpy
import sys
from threading import Thread


def end_with_driver() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    Thread(target=end_with_driver, daemon=True).start()
    sys.argv = ["headwater", "run", f"{__package__}.{sys.argv[1]}:app", *sys.argv[3:]]
    runpy.run_module("headwater", run_name="__main__", alter_sys=True)
