"""Items of a source that may be silent for long, drawn without waiting for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any


class Drawn:
    """A source whose next item is awaited by a thread of its own, one at a time and when asked for.

    So finished work can be handed on while the source is silent. The thread ends with the process:
    a source that never speaks again keeps nobody.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.exhausted = False
        self._asked = False
        self._questions: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        rest = (iter(items), self._questions, self._answers)
        threading.Thread(target=_draw, args=rest, name="draw items", daemon=True).start()

    def take(self, seconds: float) -> list[Any]:
        """The next item, or none if the source has ended or said nothing for so many seconds.

        What the source raises is raised here. An item that comes later is given to the next call.
        """
        if self.exhausted:
            return []
        if not self._asked:
            self._asked = True
            self._questions.put(True)
        try:
            item, error = self._answers.get(timeout=seconds)
        except queue.Empty:
            return []
        self._asked = False
        if error is None:
            return [item]
        self.exhausted = True
        if isinstance(error, StopIteration):
            return []
        raise error

    def close(self) -> None:
        """Ask for nothing more."""
        self._questions.put(False)


def _draw(
    items: Iterator[Any],
    questions: queue.SimpleQueue[bool],
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]],
) -> None:
    while questions.get():
        try:
            answer = (next(items), None)
        except BaseException as error:  # noqa: BLE001  raised again by who asked
            answers.put((None, error))
            return
        answers.put(answer)
