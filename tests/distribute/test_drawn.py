from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from vggt_edge import __version__
from vggt_edge.distribute import RayExecutor
from vggt_edge.distribute.drawn import Drawn
from vggt_edge.distribute.ray import _Crew

LONG = 20.0


def test_items_come_in_order_and_end():
    source = Drawn(range(3))
    assert [source.take(LONG) for _ in range(4)] == [[0], [1], [2], []]
    assert source.exhausted and source.take(LONG) == []


def test_nothing_is_drawn_before_it_is_asked_for():
    drawn = []
    source = Drawn(drawn.append(i) or i for i in range(9))
    assert drawn == []
    source.take(LONG), source.take(LONG)
    assert drawn == [0, 1]
    source.close()


def test_a_silent_source_makes_nobody_wait_and_loses_nothing():
    more = threading.Event()

    def items():
        yield "first"
        more.wait(LONG)
        yield "second"

    source = Drawn(items())
    assert source.take(LONG) == ["first"]
    assert source.take(0.01) == source.take(0.01) == [] and not source.exhausted
    more.set()
    assert source.take(LONG) == ["second"]
    assert source.take(LONG) == [] and source.exhausted


def test_what_the_source_raises_is_raised_here_once():
    def items():
        yield 1
        raise ValueError("torn")

    source = Drawn(items())
    assert source.take(LONG) == [1]
    with pytest.raises(ValueError, match="torn"):
        source.take(LONG)
    assert source.take(LONG) == []


def test_a_closed_source_lets_go_of_its_thread():
    def count() -> int:
        return sum(thread.name == "draw items" for thread in threading.enumerate())

    before = count()
    source = Drawn(range(3))
    assert count() == before + 1
    source.take(LONG)
    source.close()
    for thread in threading.enumerate():
        if thread.name == "draw items":
            thread.join(LONG)
    assert count() <= before


class Answer(list):
    """What a call on a worker gives: here the result is in it at once."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def at_once(function) -> SimpleNamespace:
    return SimpleNamespace(remote=lambda *given: Answer([function(*given)]))


class Actor:
    """A worker that computes in this process."""

    def __init__(self) -> None:
        self.version = at_once(lambda: f"vggt-edge {__version__}, torch {torch.__version__}")
        self.run = at_once(lambda item: pickle.dumps(abs(pickle.loads(item))))


def wait(references, num_returns, timeout):
    assert references, "Ray refuses to wait for nothing"
    return references[:1], references[1:]


class NeverRaised(Exception):
    pass


def results(items) -> Iterator:
    """RayExecutor's own loop over a stand-in for Ray; tests/distribute/test_ray_cluster is real."""
    ray = SimpleNamespace(put=lambda x: x, get=lambda answer: answer[0], wait=wait)
    ray.exceptions = SimpleNamespace(RayTaskError=NeverRaised, RayError=NeverRaised)
    executor = SimpleNamespace(_ray=ray, workers=2, patience=LONG, _attempts=3)
    return RayExecutor._work(executor, _Crew(ray, Actor), Drawn(items))


def test_finished_results_are_handed_on_while_the_source_is_silent():
    came = threading.Event()

    def items():
        yield -1
        assert came.wait(LONG), "the result waited for the next item"
        yield -2
        yield -3

    found = []
    for result in results(items()):
        found.append(result)
        came.set()
    assert found == [1, 2, 3]


def test_the_loop_ends_with_its_source():
    def torn():
        yield -1
        raise ValueError("torn")

    assert list(results([])) == []
    with pytest.raises(ValueError, match="torn"):
        list(results(torn()))
