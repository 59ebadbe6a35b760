"""The composition root: declare, wire, run, stop."""

from headwater.app.adapters import open_channel, open_claims, open_database
from headwater.app.app import App
from headwater.app.parts import Parts
from headwater.app.runner import Runner
from headwater.app.wiring import Flow, Wiring, wire

__all__ = ["App", "Flow", "Parts", "Runner", "Wiring", "open_channel", "open_claims", "open_database", "wire"]
