"""moto's server, SNS and SQS kept in memory, with mended what would hide or invent faults.

`moto_program.py PORT PID` serves on loopback for as long as the process lives that has this id.

As moto has it, requests change its queues from many threads with no lock, so that a message is lost or doubled now and then;
a long poll does not see what becomes free while it waits; messages whose time in hand ran out come again last first; and a
receipt that ran out still deletes. AWS does none of these to a FIFO queue. (And moto asks the time in a way that makes a
message among hundreds cost ten times as much.)
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend
from werkzeug.serving import run_simple

LOOK: float = 0.02
"""Seconds between two looks of a long poll."""

one_at_a_time = threading.RLock()
receive: Callable[..., list[Message]] = SQSBackend.receive_message
delete: Callable[..., None] = Queue.delete_message
change: Callable[..., None] = SQSBackend.change_message_visibility


def receiving(
    self: SQSBackend, queue_name: str, count: int, wait: int, visibility: int, names: list[str] | None = None
) -> list[Message]:
    """Look again and again, each time with what has run out back in its place."""
    end = time.monotonic() + wait
    while True:
        with one_at_a_time:
            queue = self.get_queue(queue_name)
            queue._pending_messages = {one for one in queue._pending_messages if not one.visible}
            found = receive(self, queue_name, count, 0, visibility, names)
        if found or time.monotonic() >= end:
            return found
        time.sleep(LOOK)


def deleting(self: Queue, receipt_handle: str) -> None:
    """Refuse a receipt that ran out, on a FIFO queue."""
    if self.fifo_queue:
        _check(self, receipt_handle)
    delete(self, receipt_handle)


def changing(self: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    """Refuse a receipt that ran out, on a FIFO queue."""
    queue = self.get_queue(queue_name)
    if queue.fifo_queue:
        _check(queue, receipt_handle)
    change(self, queue_name, receipt_handle, visibility_timeout)


def _check(queue: Queue, receipt_handle: str) -> None:
    for one in queue._messages:
        if one.had_receipt_handle(receipt_handle) and (one.visible or one.receipt_handle != receipt_handle):
            raise ReceiptHandleIsInvalid


class Serial:
    """Requests one after another; one that receives takes its turn by itself, for it may wait."""

    def __init__(self, application: DomainDispatcherApplication) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if str(environ.get("HTTP_X_AMZ_TARGET", "")).endswith(".ReceiveMessage"):
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        with one_at_a_time:
            return self._application(environ, start_response)  # type: ignore[no-any-return]


class Handler(MotoRequestHandler):
    """Connections are kept."""

    protocol_version = "HTTP/1.1"


def ending_with(pid: int) -> None:
    """End when a process has."""
    while True:
        try:
            os.kill(pid, 0)
        except OSError:
            os._exit(0)
        time.sleep(1)


def main(port: int, pid: int) -> None:
    """Serve for as long as a process lives."""
    threading.Thread(target=ending_with, args=(pid,), daemon=True).start()
    SQSBackend.receive_message = receiving  # type: ignore[method-assign,assignment]
    SQSBackend.change_message_visibility = changing  # type: ignore[method-assign]
    Queue.delete_message = deleting  # type: ignore[method-assign]
    models.unix_time_millis = lambda: time.time() * 1000  # type: ignore[assignment]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = Serial(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, application, threaded=True, request_handler=Handler)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
