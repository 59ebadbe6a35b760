"""Repair: a consumer that misses something asks the producing service over its control topic; that publishes again from its log.

What is missing shows by a later message of its stream, or by a tally. The channel is disposable, so requests are not logged:
they are sent again for as long as something is missing.
"""

from headwater.repair.answering import Answering
from headwater.repair.asking import Asking
from headwater.repair.request import Republish, read_request

__all__ = ["Answering", "Asking", "Republish", "read_request"]
