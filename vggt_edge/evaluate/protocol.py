"""What is scored and how, as data: which frames, which metrics, which alignments.

``protocols.py`` has the published ones by name; ``score.py`` applies one to a prediction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..recording import Recording


@dataclass(frozen=True)
class Sampling:
    """Which frames of a recording are shown to the model, in which order.

    Fields
        kind    "all"; "uniform": ``count`` frames evenly spread, the first and last among them;
                "stride": every ``stride``-th from the first on, ``count`` of them at most;
                "random": ``count`` different frames in the order drawn; "fastvggt": the first, then
                at most ``count - 1`` of the rest at an even step (FastVGGT's ScanNet-50).
        count   frames, None for no limit.
        stride  of "stride"; at most half the recording, so that two frames are left.
        seed    of "random".
        least   recordings of fewer frames are left out.
        draws   of "random". "sequence": the generator depends on the seed and the recording's name
                alone, so neither order nor other recordings matter. "published": one legacy numpy
                generator runs through all recordings in order of their names, as run_co3d.py of
                QuantVGGT and VGGT does; leaving one out changes all that follow.
    """

    kind: str = "uniform"
    count: int | None = None
    stride: int = 1
    seed: int = 0
    least: int = 2
    draws: str = "sequence"


@dataclass(frozen=True)
class DepthRule:
    """How depth is scored.

    Fields
        alignments  of ``depths.ALIGNMENTS``; the first gives plain names, the others prefixed ones.
        grid        "truth": at the pixels of the true depth map, the prediction interpolated;
                    "view": at the pixels of the view, the nearest true depth.
        per_image   align every image by itself, not the scene as a whole.
        nearest     true depth below is not scored; in the recording's units.
        farthest    true depth above is not scored.
    """

    alignments: tuple[str, ...] = ("median", "scale_shift")
    grid: str = "truth"
    per_image: bool = False
    nearest: float = 0.0
    farthest: float = float("inf")


@dataclass(frozen=True)
class CloudRule:
    """How the point cloud is scored: at the pixels of the view that have a true depth.

    Fields
        alignments  of ``clouds.ALIGNMENTS``; "umeyama" gives plain names, others prefixed ones.
        points      "depth": depth and cameras; "points": the point head.
        crop        side in pixels of the middle square of each view that is kept; None: all.
        icp         reach of the point-to-point ICP after the alignment; None: no ICP.
        limit       points kept of either cloud, the same pixels of both, drawn with a seed; None:
                    all.
        farthest    true depth above is left out.
        voxel       both clouds are thinned to one point a voxel of this side; None: not.
        clip        distances count at most this much; None: in full.
        thresholds  of precision, recall and F-score.
    Lengths are in the recording's units.
    """

    alignments: tuple[str, ...] = ("umeyama",)
    points: str = "depth"
    crop: int | None = None
    icp: float | None = None
    limit: int | None = 100_000
    farthest: float = float("inf")
    voxel: float | None = None
    clip: float | None = None
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate. Data only, comparable and printable.

    Fields
        name          as given on the command line.
        beside        the published table its numbers may stand beside, and where they may not.
        sampling      which frames.
        poses         of ``poses.DEFINITIONS``; "usual" gives plain names, others prefixed ones.
        thresholds    degrees, of AUC, RRA and RTA.
        trajectories  of ``trajectories.ALIGNMENTS``; "sim3" gives plain names.
        depth         None: not scored.
        cloud         None: not scored.
        average       "sequences": mean over recordings; "groups": mean over the groups of their
                      means, a group being the first part of a recording's name (a category).
        mode          how pictures become views where nothing else is asked for: "keep", or "crop"
                      where the paper's script crops (``images.read_views``).
    """

    name: str
    beside: str
    sampling: Sampling = field(default_factory=Sampling)
    poses: tuple[str, ...] = ()
    thresholds: tuple[int, ...] = (30, 15, 5, 3)
    trajectories: tuple[str, ...] = ()
    depth: DepthRule | None = None
    cloud: CloudRule | None = None
    average: str = "sequences"
    mode: str = "keep"

    @property
    def heads(self) -> tuple[str, ...]:
        """The network's heads it needs a prediction of."""
        rule, wanted = self.cloud, set()
        if self.poses or self.trajectories or rule:
            wanted.add("camera")
        if self.depth or (rule and rule.points == "depth"):
            wanted.add("depth")
        if rule and rule.points == "points":
            wanted.add("point")
        return tuple(sorted(wanted))


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator that depends on the two alone: the same in every process and order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _stride(frames: int, sampling: Sampling) -> np.ndarray:
    step = max(1, min(sampling.stride, frames // 2))
    return np.arange(0, frames, step)[: sampling.count]


def _pick(frames: int, sampling: Sampling) -> np.ndarray:
    every = np.arange(frames)
    count = sampling.count
    if sampling.kind == "stride":
        return _stride(frames, sampling)
    if sampling.kind == "all" or count is None or count >= frames:
        return every
    if sampling.kind == "uniform":
        return np.round(np.linspace(0, frames - 1, count)).astype(int)
    if sampling.kind == "fastvggt":
        step = max(1, (frames - 1) // max(count - 1, 1))
        return np.concatenate([every[:1], every[1::step][: count - 1]])
    raise ValueError(f"no sampling is called {sampling.kind!r}")


def _takes(recording: Recording, sampling: Sampling) -> bool:
    least = sampling.least
    if sampling.kind == "random":
        least = max(least, sampling.count or 0)
    return len(recording) >= least


def select(recording: Recording, protocol: Protocol) -> np.ndarray:
    """Indices of the frames of ``recording`` to predict; empty: the recording is left out.

    Deterministic, and independent of other recordings. Published draws are not: for those, and for
    everything else as well, ``select_all``.

    Raises:
        ValueError: when the protocol's draws are the published ones.
    """
    sampling = protocol.sampling
    if not _takes(recording, sampling):
        return np.arange(0)
    if sampling.kind != "random":
        return _pick(len(recording), sampling)
    if sampling.draws != "sequence":
        raise ValueError("published draws depend on all recordings: use select_all")
    random = generator(sampling.seed, recording.name)
    return random.choice(len(recording), size=sampling.count, replace=False)


def select_all(recordings: Sequence[Recording], protocol: Protocol) -> list[np.ndarray]:
    """``select`` for each of the recordings, which for published draws are all of the split."""
    sampling = protocol.sampling
    if sampling.kind != "random" or sampling.draws == "sequence":
        return [select(recording, protocol) for recording in recordings]
    chain = np.random.RandomState(sampling.seed)
    picked = [np.arange(0)] * len(recordings)
    for index in sorted(range(len(recordings)), key=lambda i: recordings[i].name):
        if _takes(recordings[index], sampling):
            picked[index] = chain.choice(len(recordings[index]), sampling.count, replace=False)
    return picked
