"""One line makes a model's global attention sparse, and one undoes it; no retraining."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from . import covisibility, retrieval
from .anchors import farthest_points
from .distribute import Executor
from .errors import InputError
from .model.config import VGGTConfig
from .model.megaloc import MegaLoc
from .model.vggt import VGGT
from .sparse_plan import SparsePlan
from .sparsity import Sparsity
from .types import Views

# Modes that need to know which views are alike.
ANCHORED = ("anchors", "covisible+anchors")
COVISIBLE = ("covisible", "covisible+anchors")
DIALS = {field.name for field in fields(Sparsity)} - {"mode", "anchors"}


def suited(config: VGGTConfig, sparsity: Sparsity) -> Sparsity:
    """The mode for a network: "auto" is dense where compensation tokens allow nothing else.

    Such tokens (QVGGT's) are views that all others see, in the camera head; no plan knows of them.

    Raises:
        InputError: another mode for a network with compensation tokens.
    """
    if not (config.compensation_tokens and "camera" in config.heads) or sparsity.mode == "dense":
        return sparsity
    if sparsity.mode == "auto":
        return replace(sparsity, mode="dense")
    raise InputError(
        "this network has a compensation token, which the camera head sees beside all views, so "
        f"that attention cannot be {sparsity.mode}: use --attention dense, without --stream, or "
        "make_sparse(model, 'dense')"
    )


def make_sparse(
    model: VGGT,
    mode: str = "anchors",
    *,
    k: int = 25,
    retrieval: MegaLoc | None = None,
    **dials: Any,
) -> VGGT:
    """Let ``predict`` thin out the global attention; weights stay as they are, float or compressed.

    Args:
        model: changed in place; ``make_sparse(model, "dense")`` undoes it.
        mode: of ``sparsity.MODES``: dense, anchors, covisible, covisible+anchors, avggt, merge or
            auto; see there for what each does and where it is from.
        k: how many anchors.
        retrieval: tells which views are alike, from ``load_megaloc``; the model's own encoder when
            None.
        dials: further fields of ``sparsity.Sparsity``: neighbours, threshold, stride, split,
            merged, dense_up_to, camera.

    Returns:
        The model.

    Raises:
        InputError: an unknown mode or dial, an impossible number, or a network that must be dense.
    """
    if unknown := sorted(dials.keys() - DIALS):
        raise InputError(f"unknown dials {', '.join(unknown)}: use k, {', '.join(sorted(DIALS))}")
    sparsity = suited(model.config, Sparsity(mode, anchors=k, **dials))
    mode = sparsity.mode
    model.sparsity = None if mode == "dense" else sparsity
    # Not as an attribute that torch would take for a part of the network.
    model.__dict__["_retrieval"] = None if mode == "dense" else retrieval
    return model


def describer(model: VGGT) -> VGGT | MegaLoc:
    """The network that tells which views are alike."""
    return model.__dict__.get("_retrieval") or model


def without_describer(model: VGGT) -> VGGT:
    """The same network, weights shared, that does not hold the one for ``retrieval``.

    For where no plan is made: MegaLoc's 229 M parameters would travel for nothing.
    """
    twin = copy.copy(model)
    twin.__dict__["_retrieval"] = None
    return twin


def needs_likeness(model: VGGT, views: int) -> bool:
    """Whether a plan for so many views needs descriptors of them."""
    sparsity = model.sparsity
    return sparsity is not None and sparsity.mode_for(views) in (*ANCHORED, *COVISIBLE)


def choose_anchors(descriptors: np.ndarray, count: int) -> tuple[int, ...]:
    """Increasing indices of ``count`` views that cover all; the first, the world's, among them."""
    return tuple(sorted(farthest_points(descriptors, count).indices.tolist()))


def plan_for(
    model: VGGT,
    views: Views,
    *,
    descriptors: np.ndarray | None = None,
    anchors: Sequence[int] | None = None,
    sparsity: Sparsity | None = None,
    executor: Executor | None = None,
) -> SparsePlan | None:
    """The plan for one set of views; None when the model is dense.

    Args:
        model: after ``make_sparse``.
        views: all of them.
        descriptors: (S, D) unit rows; from ``retrieval``; when None and needed, those by
            ``describer(model)``.
        anchors: indices of views to be anchors, instead of farthest points; the first view, which
            fixes the world, is added.
        sparsity: instead of the model's own.
        executor: who describes the views; this process when None.

    Raises:
        InputError: anchors that are not there.
    """
    sparsity, count = sparsity or model.sparsity, len(views)
    if sparsity is None:
        return None
    mode, depth = sparsity.mode_for(count), model.config.depth
    chosen: Sequence[int] = ()
    neighbours: Sequence[Sequence[int]] = ()
    given = mode in ANCHORED and anchors is not None
    if descriptors is None and (mode in COVISIBLE or (mode in ANCHORED and not given)):
        descriptors = retrieval.descriptors(describer(model), views, executor=executor)
    if mode in ANCHORED and anchors is not None:
        chosen = sorted({0, *anchors})
        if chosen[0] < 0 or chosen[-1] >= count:
            raise InputError(f"anchors must be indices of the {count} views, got {list(anchors)}")
    elif mode in ANCHORED and descriptors is not None:
        chosen = choose_anchors(descriptors, sparsity.anchors)
    if mode in COVISIBLE and descriptors is not None:
        graph = covisibility.covisibility_graph(
            descriptors, sparsity.neighbours, sparsity.threshold
        )
        graph = covisibility.join_components(descriptors, graph)
        neighbours = [row.tolist() for row in graph.neighbours()]
    return sparsity.plan(count, depth, anchors=chosen, neighbours=neighbours)
