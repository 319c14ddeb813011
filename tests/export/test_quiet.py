import signal

import pytest

from vggt_edge.export.quiet import uninterrupted


def test_an_interrupt_waits_for_the_end():
    steps = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_an_interrupt_nothing_happens():
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_comes_through():
    with pytest.raises(ValueError), uninterrupted():
        raise ValueError("no")
