"""How a model's global attention is to be thinned out: a policy, from which plans are made.

Modes
    dense              every view sees every view.
    anchors            Good Token Hunting (arXiv 2605.23892): a diverse set of views is what all
                       others see. Early layers look at their own view only, middle layers at the
                       anchors' tokens on a grid, late layers at all of them. Here a view sees its
                       own tokens as well.
    covisible          each view sees those it is most alike to. Measured elsewhere to lose the
                       poses (same paper: 7-Scenes ATE .381 against .0698 dense).
    covisible+anchors  both sets, layer by layer as "anchors".
    avggt              after AVGGT (arXiv 2512.02541): early layers look at their own view only,
                       the others at a grid of tokens of all views and the whole first view. In
                       place of its diagonal and mean terms a view sees all its own tokens.
    merge              after FastVGGT (arXiv 2509.02560): tokens that are alike attend as one.
    auto               dense up to ``dense_up_to`` views, then anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from .errors import InputError
from .sparse_plan import LayerPlan, SparsePlan, dense_plan

MODES = ("dense", "anchors", "covisible", "covisible+anchors", "avggt", "merge", "auto")
# Layers of VGGT-1B, of 24, that look at their own view only and at thinned anchors: the published
# splits, scaled to a model's depth.
ANCHOR_SPLIT = (2 / 24, 9 / 24)
AVGGT_SPLIT = (9 / 24, 9 / 24)


@dataclass(frozen=True)
class Sparsity:
    """A mode and its dials.

    Fields
        mode         one of ``MODES``.
        anchors      how many anchors.
        neighbours   how many most alike views each view sees ("covisible").
        threshold    least cosine likeness for that; edges that keep the set connected are exempt.
        stride       grid of the keys in the middle layers ("anchors") or the late ones ("avggt").
        split        shares of the depth (frame-only up to, thinned up to); None for the mode's own.
        merged       share of the tokens merged away ("merge").
        dense_up_to  views up to which "auto" is dense; None for twice the anchors.
        camera       "anchors": the camera head's tokens see the anchors' and their own, which
                     streaming needs; "all": every view's. Modes without anchors are "all".
    """

    mode: str = "anchors"
    anchors: int = 25
    neighbours: int = 10
    threshold: float = 0.0
    stride: int = 3
    split: tuple[float, float] | None = None
    merged: float = 0.9
    dense_up_to: int | None = None
    camera: str = "anchors"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"unknown attention mode {self.mode!r}: use {', '.join(MODES)}")
        least = {"anchors": 1, "neighbours": 1, "stride": 1}
        if self.dense_up_to is not None:
            least["dense_up_to"] = 0
        for name, lowest in least.items():
            value = getattr(self, name)
            if not isinstance(value, Integral):
                raise InputError(f"{name} must be a whole number, got {value!r}")
            if value < lowest:
                raise InputError(f"{name} must be at least {lowest}, got {value}")
        # NaN is in no range.
        if not (isinstance(self.threshold, Real) and -1 <= self.threshold <= 1):
            raise InputError(f"threshold must be a cosine in [-1, 1], got {self.threshold!r}")
        if not (isinstance(self.merged, Real) and 0 <= self.merged <= 1):
            raise InputError(f"merged must be a share in [0, 1], got {self.merged!r}")
        if self.split is not None:
            self._check_split()
        if self.camera not in ("anchors", "all"):
            raise InputError(f"camera must be 'anchors' or 'all', got {self.camera!r}")

    def _check_split(self) -> None:
        given: Any = self.split
        split = tuple(given) if isinstance(given, Sequence) else (given,)
        numbers = len(split) == 2 and all(isinstance(share, Real) for share in split)
        if not (numbers and 0 <= split[0] <= split[1] <= 1):
            raise InputError(
                "split must be two increasing shares of the depth, such as (0.1, 0.4), got "
                f"{self.split!r}"
            )

    def mode_for(self, views: int) -> str:
        """The mode in force for a set of ``views`` views."""
        if self.mode != "auto":
            return self.mode
        most = 2 * self.anchors if self.dense_up_to is None else self.dense_up_to
        return "dense" if views <= most else "anchors"

    def plan(
        self,
        views: int,
        depth: int,
        *,
        anchors: Sequence[int] = (),
        neighbours: Sequence[Sequence[int]] = (),
    ) -> SparsePlan:
        """The plan for one set of views.

        Args:
            views: how many.
            depth: global layers of the model.
            anchors: view indices, for the modes that have anchors.
            neighbours: for each view those it sees, for the modes with "covisible".
        """
        mode = self.mode_for(views)
        if mode == "dense":
            return dense_plan(views, depth)
        if mode == "merge":
            return SparsePlan(views, (LayerPlan("merge", merged=self.merged),) * depth)
        chosen = tuple(sorted(set(anchors)))
        if mode == "avggt":
            late = LayerPlan("all", (self.stride, self.stride), first=True)
            return SparsePlan(views, self._layers(depth, AVGGT_SPLIT, late, late))
        if mode == "covisible":
            listed = tuple(tuple(sorted(set(one))) for one in neighbours)
            return SparsePlan(views, (LayerPlan("neighbours"),) * depth, neighbours=listed)
        grid = (self.stride, self.stride)
        camera = LayerPlan("anchors") if self.camera == "anchors" else LayerPlan()
        if mode == "anchors":
            layers = self._layers(
                depth, ANCHOR_SPLIT, LayerPlan("anchors", grid), LayerPlan("anchors")
            )
            return SparsePlan(views, layers, camera, chosen)
        layers = self._layers(
            depth, ANCHOR_SPLIT, LayerPlan("neighbours", grid), LayerPlan("neighbours")
        )
        listed = tuple(tuple(sorted({*one, *chosen})) for one in neighbours)
        return SparsePlan(views, layers, camera, chosen, listed)

    def largest(self, views: int, depth: int) -> SparsePlan | None:
        """A plan that needs as much memory as any for so many views; None when dense."""
        mode = self.mode_for(views)
        if mode == "dense":
            return None
        # In a graph of neighbours a view may be everybody's: keys of all are held in any case.
        some = range(min(self.anchors, views))
        return self.plan(views, depth, anchors=some, neighbours=[range(views)] * views)

    def _layers(
        self, depth: int, split: tuple[float, float], thinned: LayerPlan, late: LayerPlan
    ) -> tuple[LayerPlan, ...]:
        alone, grid = (round(depth * share) for share in self.split or split)
        kinds = [LayerPlan("frame")] * alone + [thinned] * (grid - alone)
        return (*kinds, *[late] * (depth - grid))
