"""Sagas (also called process managers): events -> commands and timers, with a state of their own."""

from headwater.outbox import After, CancelTimer
from headwater.saga.declare import END, Compensate, Saga, Undo, react
from headwater.saga.worker import SagaWorker

__all__ = ["END", "After", "CancelTimer", "Compensate", "Saga", "SagaWorker", "Undo", "react"]
