"""VGGT: images in; cameras, depth, points and tracks out, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..recipe import Recipe
from ..sparse_plan import SparsePlan
from ..sparsity import Sparsity
from . import sparse
from .aggregator import Aggregator, Tap
from .camera import CameraHead
from .config import VGGTConfig
from .dense import DenseHead, activate_depth, activate_points
from .layers import LayerScale, Norm
from .track import TrackHead


class VGGTOutput(NamedTuple):
    """Raw outputs under upstream's names; None for heads that are absent.

    pose_enc           (B, S, 9) translation, quaternion xyzw, fields of view (v, h).
    pose_enc_list      the same after each refinement.
    depth              (B, S, H, W, 1).
    depth_conf         (B, S, H, W).
    world_points       (B, S, H, W, 3).
    world_points_conf  (B, S, H, W).
    track              (B, S, N, 2) pixel positions (column, row) of the query points.
    vis, conf          (B, S, N) in [0, 1].
    """

    pose_enc: Tensor | None = None
    pose_enc_list: tuple[Tensor, ...] = ()
    depth: Tensor | None = None
    depth_conf: Tensor | None = None
    world_points: Tensor | None = None
    world_points_conf: Tensor | None = None
    track: Tensor | None = None
    vis: Tensor | None = None
    conf: Tensor | None = None


def precise_parameters(model: nn.Module) -> set[str]:
    """Names of what stays float32 in a half-precision network: norms, LayerScale, dense heads.

    They are few, and what is rounded there goes straight into depth.
    """
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, (Norm, LayerScale, DenseHead))
        for name, _ in module.named_parameters()
    }


class VGGT(nn.Module):
    """The whole network; only ``config.heads`` are built.

    Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025.
    """

    license = ""  # of the weights, as far as their file says
    recipe: Recipe | None = None  # of compressed weights
    sparsity: Sparsity | None = None  # set by make_sparse; forward is then handed a plan

    def __init__(self, config: VGGTConfig):
        super().__init__()
        self.config = config
        width, patch = 2 * config.width, config.patch_size
        channels, features = config.dense_channels, config.dense_features
        self.aggregator = Aggregator(config)
        if "camera" in config.heads:
            self.camera_head = CameraHead(config)
        if "depth" in config.heads:
            self.depth_head = DenseHead(width, patch, channels, features, outputs=2)
        if "point" in config.heads:
            self.point_head = DenseHead(width, patch, channels, features, outputs=4)
        if "track" in config.heads:
            self.track_head = TrackHead(config)

    def forward(
        self,
        images: Tensor,
        query_points: Tensor | None = None,
        heads: Sequence[str] | None = None,
        chunk: int | None = None,
        dense_chunk: int | None = None,
        plan: SparsePlan | None = None,
        cache: sparse.KeyCache | None = None,
    ) -> VGGTOutput:
        """One pass.

        Args:
            images: (B, S, 3, H, W) in [0, 1], or uint8; H and W multiples of the patch size. The
                first view fixes the world frame.
            query_points: (B, N, 2) pixels (column, row) of the first view, to be tracked.
            heads: which heads to run, all that were built when None.
            chunk: views in flight at a time in the aggregator (inference only), None for all.
            dense_chunk: the same for the dense heads.
            plan: which keys each view sees, inference only; ``predict`` makes one when the model
                was made sparse.
            cache: empty, to keep the keys of these views, the anchors; or filled by them, to be
                seen by these views.

        Raises:
            ValueError: on sizes that are no multiple of the patch size, query points without a
                track head, a plan for another number of views, or a model that was made sparse
                and gets no plan.
        """
        if images.ndim != 5 or images.shape[2] != 3:
            raise ValueError(f"images must be (B, S, 3, H, W), got {tuple(images.shape)}")
        patch = self.config.patch_size
        if images.shape[3] % patch or images.shape[4] % patch:
            height, width = images.shape[3:]
            raise ValueError(
                f"image size {height}x{width} is no multiple of the patch size {patch}"
            )
        if query_points is not None and "track" not in self.config.heads:
            raise ValueError("query_points need a model with the track head")
        if plan is None and self.sparsity is not None:
            raise ValueError(
                f"this model was made sparse ({self.sparsity.mode}): use predict, give forward a "
                "plan, or undo it with make_sparse(model, 'dense')"
            )
        if plan is not None and (plan.views, len(plan.layers)) != (
            images.shape[1],
            self.config.depth,
        ):
            raise ValueError(
                f"a plan for {plan.views} views and {len(plan.layers)} layers does not fit "
                f"{images.shape[1]} views and {self.config.depth} layers"
            )
        taps = self.aggregator(images, chunk, plan, cache)
        grid = (images.shape[3] // patch, images.shape[4] // patch)
        reach = None
        if plan is not None:
            reach = sparse.Reach(plan, self.aggregator.layout(images), cache)
        output = self.decode(taps, grid, query_points, heads, dense_chunk, reach)
        if cache is not None:
            cache.filled = True
        return output

    def decode(
        self,
        taps: list[Tap],
        grid: tuple[int, int],
        query_points: Tensor | None = None,
        heads: Sequence[str] | None = None,
        chunk: int | None = None,
        reach: sparse.Reach | None = None,
    ) -> VGGTOutput:
        """Run the heads on tapped tokens of (rows, cols) = ``grid`` patches per view."""
        heads = self.config.heads if heads is None else heads
        special = self.config.special_tokens
        result = VGGTOutput()
        if "camera" in heads:
            poses = self.camera_head(taps[-1].tokens(last=1).squeeze(2), reach)
            poses = tuple(pose.float() for pose in poses)
            result = result._replace(pose_enc=poses[-1], pose_enc_list=poses)
        if "depth" in heads:
            depth, confidence = activate_depth(self.depth_head(taps, special, grid, chunk))
            result = result._replace(depth=depth, depth_conf=confidence)
        if "point" in heads:
            points, confidence = activate_points(self.point_head(taps, special, grid, chunk))
            result = result._replace(world_points=points, world_points_conf=confidence)
        if query_points is not None:
            tracks, visible, confidence = self.track_head(taps, special, grid, query_points, chunk)
            result = result._replace(track=tracks[-1], vis=visible, conf=confidence)
        return result
