"""What all executors have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Something that maps a function over items, here or on other machines."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
        """Results as they come, in any order: each says which item it is of.

        The function is pure and can be pickled, so an item may be run again elsewhere. Items are
        best drawn as needed: each holds the pixels of a cluster. What the function raises is raised
        here. An executor that loses an item for good raises a ``WorkerError``; a rerun goes on from
        the results it had yielded.
        """
        ...
