"""What an exported network's answers are worth: beside the network's own, and beside the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ... import metrics
from ...predict import extrinsics_from_encoding
from ..golden import Golden


@dataclass(frozen=True)
class Limits:
    """What a precision may cost, for a gate to pass.

    Fields
        abs_rel      of depth to the network's own, worst image.
        delta1       share of pixels within 1.25 of the network's own, worst image.
        rotation     degrees to the network's own camera, worst image.
        translation  distance to its own camera over the median depth, worst image.
        drop         loss against the truth, mean over sets: of delta1 and of AUC@30, in shares, and
                     rise of AbsRel. AUC counts where the network itself has more than ``GUESSING``.
        repeat       mean relative difference to what the files said where they were made.
    """

    abs_rel: float
    delta1: float
    rotation: float
    translation: float
    drop: float
    repeat: float


LIMITS = {
    "float32": Limits(1e-3, 0.9999, 0.05, 1e-3, 0.001, 1e-3),
    "fp16": Limits(1e-2, 0.999, 0.5, 1e-2, 0.002, 5e-3),
    "int8": Limits(0.05, 0.98, 2.0, 0.05, 0.01, 2e-2),
    "int4": Limits(0.10, 0.95, 4.0, 0.10, 0.02, 4e-2),
}

# A direction at random has AUC@30 0.02. Of a network whose own cameras are no better than this,
# AUC over a few pairs is a throw of dice, and says nothing of an export.
GUESSING = 0.1


def precision(recipe: str) -> str:
    """Which limits a recipe is held to; int4's where any weight has 4 bits, int8's of the rest."""
    if recipe in LIMITS:
        return recipe
    if recipe.startswith("float") or recipe == "fp32":
        return "float32"
    return "int4" if "int4" in recipe or "w4" in recipe or "4w" in recipe else "int8"


@dataclass(frozen=True)
class ImageScore:
    """One view of one set.

    Fields
        set, view    which.
        abs_rel, delta1         of depth to the network's own, nothing aligned; None without depth.
        rotation, translation   of the camera to the network's own, degrees and shares of the
                                median depth (1 where there is no depth); None without cameras.
    """

    set: str
    view: int
    abs_rel: float | None
    delta1: float | None
    rotation: float | None
    translation: float | None


@dataclass(frozen=True)
class Measured:
    """Every image, and means against the truth as pairs (the network in float32, the candidate)."""

    images: tuple[ImageScore, ...]
    truth: Mapping[str, tuple[float, float]]

    @property
    def worst(self) -> ImageScore:
        """The image whose depth, or else camera, is furthest off."""
        return max(self.images, key=lambda one: (one.abs_rel or 0.0, one.rotation or 0.0))

    def broken(self, limits: Limits) -> list[str]:
        """What is outside the limits, one line each; the worst image's name in it."""
        wrong = []
        bounds = {"abs_rel": limits.abs_rel, "rotation": limits.rotation}
        bounds["translation"] = limits.translation
        for name, most in bounds.items():
            one = max(self.images, key=lambda image: getattr(image, name) or 0.0)
            if not (value := getattr(one, name) or 0.0) <= most:
                wrong.append(f"{name} {value:.4g} above {most:g} at {one.set}, view {one.view}")
        known = [one for one in self.images if one.delta1 is not None]
        if known and not (low := min(known, key=lambda one: one.delta1 or 0.0)).delta1:
            wrong.append(f"delta1 0 at {low.set}, view {low.view}")
        elif known and (low.delta1 or 0.0) < limits.delta1:
            wrong.append(
                f"delta1 {low.delta1:.4g} below {limits.delta1} at {low.set}, view {low.view}"
            )
        for name, (before, after) in self.truth.items():
            if name == "auc30" and before < GUESSING:
                continue
            loss = after - before if name == "abs_rel" else before - after
            if loss > limits.drop:
                wrong.append(
                    f"{name} against the truth {before:.4f} -> {after:.4f}, more than {limits.drop}"
                )
        return wrong


def measure(found: Mapping[str, np.ndarray], golden: Golden) -> Measured:
    """Score answers to the golden pictures.

    Args:
        found: output to (N, ...) float32, finite, of the golden reference's shapes.
        golden: pictures, the network's answers and, of the procedural worlds, the truth.
    """
    images = [
        _score(found, golden, index, view)
        for index in range(len(golden))
        for view in range(golden.images.shape[1])
    ]
    truth: dict[str, tuple[float, float]] = {}
    known = np.flatnonzero(golden.has_truth)
    if "depth" in found and len(known):
        before, after = (
            [_depth_truth(depth[i], golden.depth[i]) for i in known if golden.depth[i].any()]
            for depth in (golden.reference["depth"], found["depth"])
        )
        for place, name in enumerate(("abs_rel", "delta1")):
            truth[name] = _mean(b[place] for b in before), _mean(a[place] for a in after)
    if "pose" in found and len(known) and golden.images.shape[1] > 1:
        truth["auc30"] = (
            _mean(_auc(golden.reference["pose"][i], golden.camera_from_world[i]) for i in known),
            _mean(_auc(found["pose"][i], golden.camera_from_world[i]) for i in known),
        )
    return Measured(tuple(images), truth)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _score(found: Mapping[str, np.ndarray], golden: Golden, index: int, view: int) -> ImageScore:
    abs_rel = delta1 = rotation = translation = None
    middle = 1.0
    if "depth" in found:
        ours = found["depth"][index, view]
        theirs = golden.reference["depth"][index, view]
        score = metrics.depth_score(ours, theirs, theirs > 0, align=False)
        abs_rel, delta1, middle = score.abs_rel, score.delta1, float(np.median(theirs))
    if "pose" in found:
        ours, theirs = (
            extrinsics_from_encoding(pose[index, view])
            for pose in (found["pose"], golden.reference["pose"])
        )
        rotation = float(metrics.rotation_angle(ours[None, :, :3], theirs[None, :, :3])[0])
        translation = float(np.linalg.norm(ours[:, 3] - theirs[:, 3]) / middle)
    return ImageScore(golden.names[index], view, abs_rel, delta1, rotation, translation)


def _depth_truth(depth: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    score = metrics.depth_score(depth[..., 0], truth, truth > 0)
    return score.abs_rel, score.delta1


def _auc(pose: np.ndarray, truth: np.ndarray) -> float:
    poses = extrinsics_from_encoding(pose)
    return metrics.pose_auc(*metrics.relative_pose_errors(poses, truth.astype(np.float64)))


def differs(
    name: str, found: np.ndarray, wanted: np.ndarray, limit: float, sets: tuple[str, ...]
) -> str | None:
    """Where an output is not what it was, None where it is: mean of |f - w| / (|w| + scale).

    ``limit`` bounds it for every view; the pixel named is the one that is furthest off.
    """
    f, w = found.astype(np.float64), wanted.astype(np.float64)
    error = np.abs(f - w)
    scale = max(float(np.abs(w).mean()), 1e-12)
    by_view = (error / (np.abs(w) + scale)).reshape(*error.shape[:2], -1).mean(-1)
    index, view = np.unravel_index(int(by_view.argmax()), by_view.shape)
    if by_view[index, view] <= limit:
        return None
    place = np.unravel_index(int(error[index, view].argmax()), error.shape[2:])
    where = f"row {place[0]}, column {place[1]}" if len(place) > 1 else f"number {place[0]}"
    return (
        f"golden {name} differs at {sets[index]}, view {view}, {where}: "
        f"{f[index, view][place]:.6g}, and {w[index, view][place]:.6g} where the bundle was made "
        f"(mean relative difference {by_view[index, view]:.3g}, limit {limit:g})"
    )
