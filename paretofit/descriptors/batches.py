"""Functions of many structures, evaluated in batches on several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from paretofit.execution import RunContext

BATCH_STRUCTURES = 8  # structures handed to a worker at once


def map_structures(
    function: Callable[[Any, Any], Any],
    shared: Any,
    structures: Sequence[Any],
    description: str,
    context: RunContext,
) -> list[Any]:
    """Evaluate ``function(shared, structure)`` for every structure; results are in their order."""
    starts = range(0, len(structures), BATCH_STRUCTURES)
    batches = [structures[start : start + BATCH_STRUCTURES] for start in starts]
    results = context.map_and_track(partial(_map_batch, function=function, shared=shared), batches, description)
    return [result for batch in results for result in batch]


def _map_batch(structures: Sequence[Any], function: Callable[[Any, Any], Any], shared: Any) -> list[Any]:
    """Evaluate one batch in a worker, with one thread: the workers use all cores already."""
    with threadpool_limits(1):
        return [function(shared, structure) for structure in structures]
