"""Python imports this when a process starts: a process of a rig plants what its parent says, whatever its entry point."""

import os

from tests.fault.plants.garden import VARIABLE, plants

if os.environ.get(VARIABLE):
    patch = plants()[os.environ[VARIABLE]].apply()  # kept: one that is a generator ends when nobody has it
    patch.__enter__()
