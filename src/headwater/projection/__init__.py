"""Read models: events folded by key into plain SQL tables, inside the commit or behind it, and rebuilt beside the old."""

from headwater.projection.declare import DELETE, Projection, ReadModel, projection_of
from headwater.projection.rebuild import rebuild
from headwater.projection.worker import ProjectionWorker, inline_fold, types_of

__all__ = [
    "DELETE",
    "Projection",
    "ProjectionWorker",
    "ReadModel",
    "inline_fold",
    "projection_of",
    "rebuild",
    "types_of",
]
