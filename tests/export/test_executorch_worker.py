"""The worker of ExecuTorch's gate; its packages are there in their environment alone."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from vggt_edge.export.gates import gate

PRESENT = importlib.util.find_spec("executorch") is not None


@pytest.mark.skipif(not PRESENT, reason="ExecuTorch's environment: make test-executorch")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_as_the_job_says(monkeypatch, threads):
    monkeypatch.setattr(sys, "path", [str(gate.WORKERS), *sys.path])
    import run_executorch
    from executorch.extension.pybindings import portable_lib

    assert run_executorch.load({"stages": [], "threads": threads}, {}) == []
    assert portable_lib._threadpool_get_thread_count() == threads
