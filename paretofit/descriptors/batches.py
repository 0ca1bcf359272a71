"""Evaluation of a function for many structures, in batches on several processes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from paretofit.execution import RunContext

BATCH_STRUCTURES = 8  # number of structures that are passed to a worker at once


def map_structures(
    function: Callable[[Any, Any], Any],
    shared_argument: Any,
    structures: Sequence[Any],
    description: str,
    context: RunContext,
) -> list[Any]:
    """Evaluate ``function(shared_argument, structure)`` for every structure; return the results in the same order.

    `description` is the text of the progress bar; `context` gives the number of processes.
    """
    batch_starts = range(0, len(structures), BATCH_STRUCTURES)
    batches = [structures[start : start + BATCH_STRUCTURES] for start in batch_starts]
    batch_results = context.map_and_track(partial(_map_batch, function, shared_argument), batches, description)
    return [result for results in batch_results for result in results]


def _map_batch(function: Callable[[Any, Any], Any], shared_argument: Any, structures: Sequence[Any]) -> list[Any]:
    """Evaluate the function for a batch, in a worker and with one thread, because the workers already use all cores."""
    with threadpool_limits(1):
        return [function(shared_argument, structure) for structure in structures]
