"""A protocol applied to one recording and what was predicted of it: flat metric names to numbers.

A plain name is the same measure in every protocol: ``auc30`` the usual definition, ``ate`` after
Sim(3), ``abs_rel`` after the median, ``acc_mean`` after Umeyama. Others carry their definition or
alignment in front: ``legacy_auc30``, ``se3_ate``, ``scale_shift_abs_rel``, ``bounds_chamfer``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import pixels
from ..errors import InputError
from ..recording import Recording
from ..types import Cameras, Prediction
from . import depths, poses, trajectories
from .protocol import DepthRule, Protocol
from .score_cloud import MOST_PIXELS, score_cloud

PLAIN = ("usual", "sim3", "median", "umeyama")
# Of the recording's unit: they mean nothing across scenes where that is arbitrary.
LENGTHS = frozenset({"ate", "rpe_translation", "sq_rel", "rmse", "overall", "chamfer"})
LENGTHS |= {"acc_mean", "acc_median", "comp_mean", "comp_median"}


def score(protocol: Protocol, recording: Recording, prediction: Prediction) -> dict[str, float]:
    """Score one prediction.

    Args:
        protocol: says what is scored.
        recording: the frames that were predicted, in their order: ``recording[select(...)]``.
        prediction: of these frames. A camera that is not finite was not found (COLMAP).

    Returns:
        Metric to value, all finite. What the recording has no truth for, or the prediction no
        answer, is left out; so are lengths where the recording's unit is arbitrary. ``found`` is
        the share of cameras that are finite.

    Raises:
        InputError: the numbers of frames differ.
        MissingExtraError: a point cloud is scored and scipy is not installed.
    """
    if len(recording) != len(prediction.views):
        raise InputError(
            f"{recording.name}: {len(recording)} frames, but {len(prediction.views)} were predicted"
        )
    measured: list[tuple[str, dict[str, float]]] = []
    found: dict[str, float] = {}
    if recording.cameras is not None and prediction.cameras is not None:
        found["found"] = float(_is_found(prediction.cameras).mean())
        measured += _pose(protocol, recording.cameras, prediction.source_cameras)
        if protocol.poses:
            found["focal_error"] = poses.focal_error(
                prediction.source_cameras.intrinsics, recording.cameras.intrinsics
            )
    if protocol.depth and recording.depth is not None and prediction.depth is not None:
        measured += _depth(protocol.depth, recording.depth, prediction.depth, prediction)
    if protocol.cloud:
        measured += score_cloud(protocol.cloud, recording, prediction).items()
    for kind, values in measured:
        for name, value in values.items():
            if recording.units == "metres" or not _is_length(name):
                found[name if kind in PLAIN else f"{kind}_{name}"] = value
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _is_length(name: str) -> bool:
    return name in LENGTHS or name.startswith(("precision_", "recall_", "fscore_"))


def _is_found(cameras: Cameras) -> np.ndarray:
    found: np.ndarray = np.isfinite(cameras.camera_from_world).all(axis=(1, 2))
    return found


def _pose(
    protocol: Protocol, truth: Cameras, cameras: Cameras
) -> list[tuple[str, dict[str, float]]]:
    ours, theirs = cameras.camera_from_world, truth.camera_from_world
    found = _is_found(cameras)
    measured = []
    if len(truth) >= 2:
        for kind in protocol.poses:
            measured.append((kind, poses.pose_score(ours, theirs, kind, protocol.thresholds)))
    if found.sum() >= 3:
        for kind in protocol.trajectories:
            errors = trajectories.trajectory_score(ours[found], theirs[found], kind)
            measured.append((kind, errors._asdict()))
    return measured


def _depth(
    rule: DepthRule,
    true_depth: Callable[[int], np.ndarray],
    depth: np.ndarray,
    prediction: Prediction,
) -> list[tuple[str, dict[str, float]]]:
    views = prediction.views
    predicted, truths = [], []
    most = min(pixels.MOST, MOST_PIXELS // len(views))
    for index, found in enumerate(depth):
        truth = true_depth(index)
        truth = np.where((truth >= rule.nearest) & (truth <= rule.farthest), truth, 0)
        if rule.grid == "truth":
            values, truth = pixels.view_at_truth(views, index, found, truth, most)
        else:
            truth = pixels.truth_in_view(views, index, truth)
            values, truth = found[truth > 0], truth[truth > 0]
        predicted.append(values)
        truths.append(truth)
    if not sum(map(len, truths)):
        return []
    return [
        (kind, depths.depth_score(predicted, truths, kind, rule.per_image)._asdict())
        for kind in rule.alignments
    ]
