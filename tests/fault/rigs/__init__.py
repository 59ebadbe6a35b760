"""Rigs: each does one kind of harm to Headwater again and again, by seed, and looks whether a promise was broken.

A rig is a module of this package with `COUNT` (trials by default), `one_trial(seed)` and, where a trial lasts as long as
it is asked to, `LASTING = True` and `one_trial(seed, seconds=…)`. `python -m tests.fault.rigs` finds it by its name.
"""
