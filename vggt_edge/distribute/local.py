"""The executor of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .executor import Item, Result


class LocalExecutor:
    """One item after the other, in this process."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Lazily, in order."""
        return map(function, items)
