from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from conftest import TINY_CONFIG
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge import memory
from vggt_edge.errors import TooLargeError
from vggt_edge.model.config import PRESETS, VGGTConfig

CPU = torch.device("cpu")
FULL = VGGTConfig()
sizes = st.tuples(st.integers(1, 80), st.integers(1, 80)).map(lambda rc: (14 * rc[0], 14 * rc[1]))
configs = st.sampled_from([*PRESETS.values(), TINY_CONFIG])


@given(configs, sizes, st.sampled_from([2, 4]), st.integers(1, 5000))
def test_the_estimate_grows_by_the_same_for_every_view(config, size, itemsize, views):
    total = [memory.run_bytes(config, views + i, *size, itemsize) for i in range(3)]
    step = memory.bytes_per_view(config, *size, itemsize)
    assert total[2] - total[1] == total[1] - total[0] == step > 0


@given(configs, sizes)
def test_half_precision_and_fewer_heads_cost_less(config, size):
    assert memory.run_bytes(config, 9, *size, 2) < memory.run_bytes(config, 9, *size, 4)
    camera = dataclasses.replace(config, heads=("camera",))
    assert memory.run_bytes(camera, 9, *size, 4) <= memory.run_bytes(config, 9, *size, 4)


@given(configs, sizes)
def test_at_least_one_view_is_in_flight(config, size):
    chunk = memory.aggregator_chunk(config, *size)
    assert chunk >= 1
    assert chunk == 1 or chunk * memory.tokens_per_view(config, *size) <= memory.CHUNK_TOKENS
    assert memory.dense_chunk(*size) >= 1


def test_tokens_of_a_view():
    assert memory.tokens_per_view(FULL, 518, 392) == 1 + 4 + 37 * 28


def test_the_taps_are_at_least_in_the_estimate():
    """Four taps of two maps each, which nothing can do without."""
    tokens = 5 + 37 * 28
    assert memory.bytes_per_view(FULL, 518, 392, 2) > 4 * 2 * tokens * 1024 * 2


def refused(monkeypatch, free, views=100, size=(518, 392), itemsize=4) -> str:
    monkeypatch.setattr(memory, "available_memory", lambda device: free)
    with pytest.raises(TooLargeError) as caught:
        memory.require(FULL, views, size, itemsize, CPU)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_a_run_that_fits_passes(monkeypatch):
    need = memory.run_bytes(FULL, 100, 518, 392, 4)
    monkeypatch.setattr(memory, "available_memory", lambda device: need)
    memory.require(FULL, 100, (518, 392), 4, CPU)
    refused(monkeypatch, need - 1)


def test_a_refusal_names_the_estimate_and_what_would_fit(monkeypatch):
    free = memory.run_bytes(FULL, 40, 518, 392, 4)
    need = memory.run_bytes(FULL, 100, 518, 392, 4)
    message = refused(monkeypatch, free)
    assert "100 views of 392x518" in message
    assert f"{need / 1e9:.1f} GB on cpu" in message
    assert f"{free / 1e9:.1f} GB are free" in message
    assert "--limit 40" in message
    assert "--size than 518" in message
    assert "--dtype bf16" in message
    # What it advises does fit.
    limit = int(re.search(r"--limit (\d+)", message)[1])
    memory.require(FULL, limit, (518, 392), 4, CPU)
    with pytest.raises(TooLargeError):
        memory.require(FULL, limit + 1, (518, 392), 4, CPU)


def test_no_limit_is_advised_where_not_even_one_view_fits(monkeypatch):
    message = refused(monkeypatch, free=1000)
    assert "--limit" not in message
    assert "--size" in message


def test_no_dtype_is_advised_that_is_in_use(monkeypatch):
    assert "--dtype" not in refused(monkeypatch, free=1000, itemsize=2)


def test_weights_still_to_be_loaded_count(monkeypatch):
    need = memory.run_bytes(FULL, 2, 392, 518, 2) + 2_500_000_000
    monkeypatch.setattr(memory, "available_memory", lambda device: need)
    memory.require(FULL, 2, (392, 518), 2, CPU, weights=2_500_000_000)
    monkeypatch.setattr(memory, "available_memory", lambda device: 2_000_000_000)
    with pytest.raises(TooLargeError, match=r"2\.5 GB of them for weights.*--model pocket"):
        memory.require(FULL, 2, (392, 518), 2, CPU, weights=2_500_000_000)
