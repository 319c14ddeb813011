from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge.errors import InputError
from vggt_edge.evaluate import clouds, depths, poses, trajectories
from vggt_edge.evaluate.datasets import MODULES
from vggt_edge.evaluate.protocol import Protocol, Sampling, select, select_all
from vggt_edge.evaluate.protocols import _PUBLISHED, DEFAULT, NAMES, protocol
from vggt_edge.recording import Recording


def recording(frames: int, name: str = "apple/110_13051_23361") -> Recording:
    return Recording(name, tuple(Path(f"{i}.png") for i in range(frames)))


def sampled(frames: int, **sampling: object) -> np.ndarray:
    return select(recording(frames), Protocol("test", "", Sampling(**sampling)))


@given(st.integers(2, 400), st.integers(2, 30))
def test_uniform_spans_the_recording(frames, count):
    found = sampled(frames, kind="uniform", count=count)
    assert len(found) == min(frames, count)
    assert found[0] == 0 and found[-1] == frames - 1
    assert (np.diff(found) > 0).all() and np.ptp(np.diff(found)) <= 1


def test_strides():
    assert sampled(1000, kind="stride", stride=200).tolist() == [0, 200, 400, 600, 800]
    assert sampled(100, kind="stride", stride=10, count=8).tolist() == list(range(0, 80, 10))
    # NRGBD: the least of the stride and half the sequence.
    assert sampled(300, kind="stride", stride=500).tolist() == [0, 150]
    assert sampled(7, kind="all").tolist() == list(range(7))


def test_the_step_of_fastvggt():
    assert sampled(11, kind="fastvggt", count=4).tolist() == [0, 1, 4, 7]
    assert sampled(4, kind="fastvggt", count=9).tolist() == [0, 1, 2, 3]


@given(st.integers(0, 99), st.integers(10, 300))
def test_random_frames_are_different_ones(seed, frames):
    found = sampled(frames, kind="random", count=10, seed=seed)
    assert len(set(found)) == 10 and found.min() >= 0 and found.max() < frames


def test_short_recordings_are_left_out():
    assert not len(sampled(49, kind="random", count=10, least=50))
    assert not len(sampled(9, kind="random", count=10))
    assert not len(sampled(1, kind="all"))


def test_draws_do_not_depend_on_process_order_or_other_recordings():
    rules = protocol("quantvggt", "co3d")
    all_of_them = [recording(60, f"apple/{i}") for i in range(5)]
    alone = [select(one, rules).tolist() for one in all_of_them]
    assert [found.tolist() for found in select_all(all_of_them, rules)] == alone
    assert [found.tolist() for found in select_all(all_of_them[::-1], rules)] == alone[::-1]
    assert len({tuple(found) for found in alone}) == 5
    code = (
        "from pathlib import Path; from vggt_edge.evaluate.protocol import *; "
        "from vggt_edge.evaluate.protocols import protocol; "
        "r = Recording('apple/3', tuple(Path(str(i)) for i in range(60))); "
        "print(*select(r, protocol('quantvggt', 'co3d')))"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert list(map(int, printed.split())) == alone[3]


def test_draws_are_stable_across_versions():
    """A change here makes every number of a random protocol another one."""
    found = select(recording(202), protocol("quantvggt", "co3d"))
    assert found.tolist() == [16, 198, 183, 155, 113, 59, 46, 121, 156, 160]


def test_published_draws_are_numpys_global_ones():
    rules = protocol("quantvggt", "co3d", draws="published")
    frames = {"b/2": 70, "a/1": 60, "a/0": 40, "b/1": 99}
    found = select_all([recording(n, name) for name, n in frames.items()], rules)
    np.random.seed(0)
    expected = {
        name: np.random.choice(frames[name], 10, replace=False).tolist()
        for name in sorted(frames)
        if frames[name] >= 50
    }
    for name, indices in zip(frames, found, strict=True):
        assert indices.tolist() == expected.get(name, [])
    with pytest.raises(ValueError, match="select_all"):
        select(recording(60), rules)


def every_protocol() -> list[tuple[str, str]]:
    return [(name, dataset) for name, tables in _PUBLISHED.items() for dataset in tables]


@pytest.mark.parametrize(("name", "dataset"), [*every_protocol(), (DEFAULT, "worlds")])
def test_every_named_protocol_is_whole(name, dataset):
    found = protocol(name, dataset)
    assert found.name == name and found.beside
    assert dataset in MODULES
    assert set(found.poses) <= set(poses.DEFINITIONS)
    assert set(found.trajectories) <= set(trajectories.ALIGNMENTS)
    assert found.depth is None or set(found.depth.alignments) <= set(depths.ALIGNMENTS)
    assert found.cloud is None or set(found.cloud.alignments) <= set(clouds.ALIGNMENTS)
    assert found.heads and set(found.heads) <= {"camera", "depth", "point"}
    assert len(select(recording(300), found))


def test_heads():
    assert protocol("pi3", "co3d").heads == ("camera",)
    assert protocol("pi3", "7scenes").heads == ("camera", "depth")
    assert protocol("quantvggt", "7scenes").heads == ("camera", "point")


def test_changed_sampling_is_told():
    found = protocol("pi3", "7scenes", stride=40)
    assert found.sampling == replace(protocol("pi3", "7scenes").sampling, stride=40)
    assert found.beside.endswith("[changed here: 40 stride]")
    own = protocol(frames=8, stride=10)
    assert own.sampling == Sampling("stride", count=8, stride=10)
    assert own.beside == protocol().beside


def test_unknown_names():
    with pytest.raises(InputError, match=", ".join(NAMES)):
        protocol("dust3r", "co3d")
    with pytest.raises(InputError, match="says nothing about kitti, only about co3d"):
        protocol("quantvggt", "kitti")
    with pytest.raises(InputError, match="says nothing about None"):
        protocol("pi3")
    with pytest.raises(InputError, match="sequence or published"):
        protocol(draws="random")
    with pytest.raises(ValueError, match="nowhere"):
        sampled(9, kind="nowhere", count=3)
