"""A user's code, read by the type checkers and never run: what stands here must stay clean in strict mode."""

from typing import assert_type

import headwater

assert_type(headwater.__name__, str)
