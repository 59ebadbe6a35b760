"""`python -m tests.fault.plants`: what detectors that are soon done make of some plants of each promise, a JSON object for each."""

import json

from tests.fault.plants.prove import few, prove

EACH = 4

if __name__ == "__main__":
    for finding in prove(few(EACH), lambda _: None, quick=True):
        print(json.dumps(finding.as_data()), flush=True)
