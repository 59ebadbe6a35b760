"""Python imports this when a process starts: a process of a rig plants what its parent says, whatever its entry point."""

import os

from tests.fault.plants.garden import VARIABLE, plants

if os.environ.get(VARIABLE):
    plants()[os.environ[VARIABLE]].apply().__enter__()
