"""What compression costs: drops of pose, depth and points on scenes, in percent points.

A loss compares a prediction with a target, either what the float network says (the teacher) or the
truth. All are in percent, so that a drop of 1 means much the same in each:

    pose       100 (1 - AUC@30) over all pairs of views; of pairs whose baseline in the target is
               below 1 % of the scene's depth, whose direction is noise, the rotation alone counts
    pose_fine  100 (1 - AUC@3), the same where errors far below a degree count
    depth      100 AbsRel, after the ratio of medians
    points     100 mean |p - t| / |t|, after the ratio of median distances from the first camera

A drop is the loss of the compressed network minus that of the float one, scene by scene; against
the teacher the latter is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import geometry, metrics
from ..errors import InputError
from ..model.vggt import VGGT
from ..predict import predict
from ..types import Prediction, Views

METRICS = ("pose", "pose_fine", "depth", "points")
# What a tolerated drop is about. The fine pose is shown, but hardly any network can hold it.
JUDGED = ("pose", "depth", "points")
# Of the median depth; below it there is hardly a direction to be right about.
LEAST_BASELINE = 0.01
HEADS = ("camera", "depth", "point")


class Target(NamedTuple):
    """What a prediction should be, in the first camera's frame and any unit.

    camera_from_world  (S, 3, 4), or None.
    depth              (S, H, W), or None.
    points             (S, H, W, 3), or None.
    valid              (S, H, W) bool: where depth and points count.
    """

    camera_from_world: np.ndarray | None
    depth: np.ndarray | None
    points: np.ndarray | None
    valid: np.ndarray


@dataclass(frozen=True)
class Case:
    """Views of one scene, the unit that intervals are drawn over.

    Fields
        name    unique among the cases of a run.
        group   the set it belongs to.
        views   what the network sees.
        truth   what it should say, where that is known.
    """

    name: str
    group: str
    views: Views
    truth: Target | None = None


def heads_of(model: VGGT) -> tuple[str, ...]:
    """The heads of a network that are scored."""
    return tuple(head for head in HEADS if head in model.config.heads)


def target_of(prediction: Prediction) -> Target:
    """A float network's prediction as the target."""
    cameras, depth = prediction.cameras, prediction.depth
    poses = None if cameras is None else cameras.camera_from_world
    valid = prediction.views.valid_mask()
    return Target(poses, depth, _points(prediction), valid)


def _points(prediction: Prediction) -> np.ndarray | None:
    """Of the point head, or else of depth and cameras."""
    if prediction.points is not None:
        return prediction.points
    if prediction.cameras is None or prediction.depth is None:
        return None
    return prediction.world_points()


def losses(prediction: Prediction, target: Target) -> dict[str, float]:
    """Metric to loss in percent, of the metrics both have something to say about.

    Args:
        prediction: of a network.
        target: of the same views.
    """
    found = {}
    cameras, valid = prediction.cameras, target.valid
    if cameras is not None and target.camera_from_world is not None and len(cameras) > 1:
        errors = _pose_errors(cameras.camera_from_world, target)
        found["pose"] = 100 * (1 - metrics.pose_auc(*errors, 30.0))
        found["pose_fine"] = 100 * (1 - metrics.pose_auc(*errors, 3.0))
    if prediction.depth is not None and target.depth is not None:
        seen = valid & (target.depth > 0)
        if seen.any():
            score = metrics.depth_score(np.maximum(prediction.depth, 1e-6), target.depth, seen)
            found["depth"] = 100 * score.abs_rel
    points = _points(prediction)
    if points is not None and target.points is not None and valid.any():
        found["points"] = 100 * _point_error(points[valid], target.points[valid])
    return found


def _pose_errors(poses: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of rotation and of direction over all pairs, the latter zero without a baseline."""
    truth = target.camera_from_world
    if truth is None:
        raise ValueError("a target without cameras has no pose errors")
    rotation, direction = metrics.relative_pose_errors(poses, truth)
    if target.depth is None or not (seen := target.valid & (target.depth > 0)).any():
        return rotation, direction
    first, second = np.triu_indices(len(truth), k=1)
    centers = geometry.invert_rigid(truth)[:, :, 3]
    baseline = np.linalg.norm(centers[first] - centers[second], axis=1)
    moved = baseline > LEAST_BASELINE * float(np.median(target.depth[seen]))
    return rotation, np.where(moved, direction, 0.0)


def _point_error(points: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of (N, 3) points, relative to how far the true ones are."""
    points, truth = points.astype(np.float64), truth.astype(np.float64)
    far, true_far = np.linalg.norm(points, axis=1), np.linalg.norm(truth, axis=1)
    scale = np.median(true_far) / max(float(np.median(far)), 1e-12)
    floor = max(1e-3 * float(np.median(true_far)), 1e-12)  # points at the camera itself
    return float(np.mean(np.linalg.norm(scale * points - truth, axis=1) / (true_far + floor)))


class Judge:
    """Scores changes of one network on cases.

    Args:
        model: the float network, as it is now.
        cases: scenes to score on.
        against: "teacher", this network's own predictions; or "truth".

    Raises:
        InputError: no case, two of one name, a case without truth, an unknown ``against``, or a
            network without a head that is scored.
    """

    def __init__(self, model: VGGT, cases: Sequence[Case], against: str = "teacher"):
        if not cases:
            raise InputError("no scenes to score on: give a folder of pictures, or worlds")
        if len({case.name for case in cases}) < len(cases):
            raise InputError("two scenes have the same name")
        if against not in ("teacher", "truth"):
            raise InputError(f"unknown target {against!r}: use teacher or truth")
        self.heads = heads_of(model)
        if not self.heads:
            raise InputError("the network has none of the heads that are scored: camera, depth")
        self.cases, self.against = tuple(cases), against
        self._targets: list[Target] = []
        self._losses: list[dict[str, float]] = []
        for case in self.cases:
            own = predict(model, case.views, heads=self.heads)
            target = target_of(own) if against == "teacher" else case.truth
            if target is None:
                raise InputError(
                    f"the true cameras and depth of {case.name} are unknown: score it against the "
                    "teacher, or use worlds"
                )
            self._targets.append(target)
            self._losses.append(losses(own, target))

    def drops(self, model: VGGT) -> dict[str, dict[str, float]]:
        """Case to metric to drop of a network that was changed."""
        found = {}
        for case, target, before in zip(self.cases, self._targets, self._losses, strict=True):
            after = losses(predict(model, case.views, heads=self.heads), target)
            found[case.name] = {name: after[name] - before[name] for name in after}
        return found
