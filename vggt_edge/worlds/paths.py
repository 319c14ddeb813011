"""Cameras: where a person with a phone would stand, and how they would move.

A path is a first pose that sees something, and a motion: circling a target, sliding, walking,
turning, or standing wherever the target is visible. ``overlap`` sets the step of the motion. In
half of the sets the hand also aims beside the target: where it never does, the way a camera turns
follows from the way it moves (correlation 0.8), and pictures shift too little to show either.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .builder import Boxes, Builder, Interest, cross, turn_z

_UP = np.array([0.0, 0.0, 1.0])

NEAREST = 0.25
"""Metres of free space around every camera."""


class Cameras(NamedTuple):
    """Cameras of a scene: (S, 3, 4) world_from_camera, and (S,) focal lengths in image widths."""

    world_from_camera: np.ndarray
    focal: np.ndarray


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """(3, 4) world_from_camera: at ``position``, looking at ``target``, z up, ``roll`` radians."""
    forward = target - position
    forward = forward / max(float(np.linalg.norm(forward)), 1e-9)
    right = cross(forward, _UP)
    if np.linalg.norm(right) < 1e-3:
        right = np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    down = cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    turned = np.stack([c * right + s * down, c * down - s * right, forward], axis=1)
    return np.concatenate([turned, position[:, None]], axis=1)


def _good(boxes: Boxes, interest: Interest, pose: np.ndarray, focal: float) -> bool:
    """Whether a camera is in free space and sees the scene rather than the back of a cupboard."""
    position = pose[:, 3]
    if (position < interest.low).any() or (position > interest.high).any():
        return False
    if boxes.clearance(position[None])[0] < NEAREST:
        return False
    at = (np.arange(5) - 2) / 5 / focal
    rays = np.stack([np.tile(at, 5), np.repeat(at, 5), np.ones(25)], axis=1)
    depth = boxes.cast(position, rays @ pose[:, :3].T)
    seen = depth[np.isfinite(depth)]
    if len(seen) < (3 if interest.orbit else 12):
        return False
    nearest = max(0.4, 0.5 * interest.distance[0])
    return bool(np.median(seen) > nearest and (seen < 0.35).mean() < 0.1)


def _start(
    boxes: Boxes, interest: Interest, rng: np.random.Generator, focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """A position and a target that make a good first view; the last try if none is good."""
    position, target = interest.low, interest.targets[0]
    for _ in range(60):
        target = interest.targets[rng.integers(len(interest.targets))] + rng.normal(0, 0.1, 3)
        if interest.orbit or rng.random() < 0.5:
            distance = rng.uniform(*interest.distance)
            azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(-0.05, 0.8)
            across = np.cos(height)
            way = np.array([np.cos(azimuth) * across, np.sin(azimuth) * across, np.sin(height)])
            position = target + distance * way
        else:
            position = rng.uniform(interest.low, interest.high)
        position = np.clip(position, interest.low, interest.high)
        if np.linalg.norm(position - target) > 0.3 and _good(
            boxes, interest, look_at(position, target), focal
        ):
            break
    return position, target


def _moved(
    motion: str, k: float, step: float, position: np.ndarray, target: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """Position and target after ``k`` steps of a motion; a step of 1 leaves little in common."""
    gaze = target - position
    depth = float(np.linalg.norm(gaze))
    forward = gaze / depth
    right = cross(forward, _UP)
    right /= max(float(np.linalg.norm(right)), 1e-6)
    if motion == "orbit":
        return target - turn_z(k * step * 0.85) @ gaze, target
    if motion == "slide":
        shift = right * k * step * depth * min(0.8 / focal, 1.2)
        return position + shift, target + shift * 0.6
    if motion == "dolly":
        return position + forward * np.clip(k * step * 0.35, -0.8, 0.45) * depth, target
    turn = turn_z(k * step * 0.75 * 2 * np.arctan(0.5 / focal))
    return position - right * k * step * 0.1 * depth, position + turn @ gaze


def sample_views(builder: Builder, rng: np.random.Generator, views: int, overlap: float) -> Cameras:
    """Cameras of a set of views of one scene.

    Args:
        builder: the scene.
        rng: where chance comes from.
        views: how many.
        overlap: how much neighbouring views see in common, in (0, 1].
    """
    interest, boxes = builder.finished_interest(), Boxes(builder)
    focal = 0.5 / np.tan(np.radians(rng.uniform(35, 85) + rng.exponential(4)).clip(0.5, 1.66) / 2)
    position, target = _start(boxes, interest, rng, focal)
    weights = [0.6, 0.15, 0.1, 0.0, 0.15] if interest.orbit else [0.28, 0.25, 0.12, 0.12, 0.23]
    motion = str(rng.choice(["orbit", "slide", "dolly", "pan", "scatter"], p=weights))
    step = (1 - overlap) * rng.uniform(0.9, 1.6)
    direction = rng.choice([-1.0, 1.0])
    climb = rng.normal(0, 0.12) * step
    depth = float(np.linalg.norm(target - position))
    tilt = rng.normal(0, 0.03) if rng.random() < 0.85 else rng.normal(0, 0.25)
    middle = rng.uniform(0, views - 1)
    # Of half the view's width; metres at the target.
    astray = rng.uniform(0.3, 1.2) * step * 0.5 / focal * depth if rng.random() < 0.5 else 0.0
    poses: list[np.ndarray] = []
    for i in range(views):
        k = (i - middle) * direction
        for attempt in range(8):
            shrink = 0.72**attempt
            if motion == "scatter":
                wander = rng.normal(0, 0.45, 3) * [1, 1, 0.4] * step * depth * shrink
                to_position = position + wander
                to_target = target + rng.normal(0, 0.2, 3) * step * depth * shrink
            else:
                to_position, to_target = _moved(motion, k * shrink, step, position, target, focal)
                to_position = to_position + [0, 0, climb * k * depth * shrink]
            to_target = to_target + rng.normal(0, astray, 3) * [1, 1, 0.6] * shrink
            shake = 0.012 * depth * (0.3 + step)
            pose = look_at(
                to_position + rng.normal(0, shake, 3),
                to_target + rng.normal(0, shake * 2, 3),
                tilt + rng.normal(0, 0.02),
            )
            if _good(boxes, interest, pose, focal):
                break
        else:
            still = position + rng.normal(0, 0.004 * depth, 3)
            pose = look_at(still, target + rng.normal(0, 0.05 * depth, 3), tilt)
        poses.append(pose)
    order = rng.permutation(views) if rng.random() < 0.35 else np.arange(views)
    return Cameras(np.stack(poses)[order], np.full(views, focal))


def _free(boxes: Boxes, interest: Interest, start: np.ndarray, end: np.ndarray) -> bool:
    points = start + (end - start) * np.linspace(0, 1, 24)[:, None]
    inside = (points >= interest.low - 1e-6).all() and (points <= interest.high + 1e-6).all()
    return bool(inside and boxes.clearance(points).min() > NEAREST)


def _smooth(stops: np.ndarray) -> np.ndarray:
    """A dense path (M, 3) along stops (N, 3), its corners rounded but close to the legs."""
    legs = np.arange(0, len(stops) - 1 + 1e-9, 1 / 24)
    window = np.clip(legs[:, None] + np.linspace(-0.3, 0.3, 15), 0, len(stops) - 1)
    index = np.arange(len(stops))
    return np.stack([np.interp(window, index, p).mean(1) for p in stops.T], axis=1)


def sample_walk(builder: Builder, rng: np.random.Generator, views: int, stride: float) -> Cameras:
    """Cameras of a continuous path through a scene, ``stride`` metres or so from view to view."""
    interest, boxes = builder.finished_interest(), Boxes(builder)
    focal = 0.5 / np.tan(np.radians(rng.uniform(55, 75)) / 2)
    length = stride * views
    stops = [_start(boxes, interest, rng, focal)]
    walked, tries = 0.0, 0
    while walked < length and tries < 4000:
        tries += 1
        position, target = stops[-1]
        if interest.orbit:
            gaze = turn_z(rng.uniform(0.1, 0.35)) @ (position - target)
            new = target + gaze * np.exp(rng.normal(0, 0.04)), target
        else:
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.2)
            new_position = position + [
                np.cos(angle) * reach,
                np.sin(angle) * reach,
                rng.normal(0, 0.08),
            ]
            choices = interest.targets
            new_target = choices[rng.integers(len(choices))]
            # A person turns to what is near where they were looking.
            new_target = target + (new_target - target) * min(1.0, reach / 1.5)
            new = new_position, new_target
        if not _free(boxes, interest, position, new[0]):
            continue
        if not _good(boxes, interest, look_at(*new), focal):
            continue
        walked += float(np.linalg.norm(new[0] - position))
        stops.append(new)
    positions, targets = (np.stack(column) for column in zip(*stops, strict=True))
    # Angles, not targets, are blended: half-way between two walls lies one's own feet.
    gaze = targets - positions
    azimuth = np.unwrap(np.arctan2(gaze[:, 1], gaze[:, 0]))
    height = np.arctan2(gaze[:, 2], np.hypot(gaze[:, 0], gaze[:, 1]))
    path, (azimuth, height) = _smooth(positions), _smooth(np.stack([azimuth, height], 1)).T
    level = np.cos(height)
    forward = np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(height)], 1)
    # Equal steps of a mixed length, so that a turn on the spot takes as long as a walk around it.
    moved = np.linalg.norm(np.diff(path, axis=0), axis=1)
    turned = np.linalg.norm(np.diff(forward, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(moved + 0.5 * turned)])
    where = np.linspace(0, min(at[-1], length), views)
    path = np.stack([np.interp(where, at, p) for p in path.T], axis=1)
    gaze = path + np.stack([np.interp(where, at, p) for p in forward.T], axis=1)
    sway = np.cumsum(rng.normal(0, 0.002, (views, 2)), axis=0) * 0.5
    poses = [
        look_at(p, g, 0.02 * np.sin(w) + s)
        for p, g, w, (s, _) in zip(path, gaze, where, sway, strict=True)
    ]
    return Cameras(np.stack(poses), np.full(views, focal))
