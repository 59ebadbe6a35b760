"""What a commit answers goes away with those who asked, also where an error in it leads back to them."""

from __future__ import annotations

import gc
import weakref

from headwater.database import Failed
from headwater.errors import DatabaseError


def asked() -> weakref.ref[DatabaseError]:
    """Raises the error of an answer in a frame that keeps the answer: error, trace, frame and answer are a cycle."""
    answer = Failed(DatabaseError("the disk is gone"))
    try:
        raise answer.error
    except DatabaseError as error:
        return weakref.ref(error)


def test_an_error_that_was_raised_where_its_answer_is_known_is_collected() -> None:
    error = asked()
    gc.collect()
    assert error() is None
