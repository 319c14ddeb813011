"""VGGT: images in; cameras, depth, points and tracks out, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

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
    ) -> VGGTOutput:
        """One pass.

        Args:
            images: (B, S, 3, H, W) in [0, 1], or uint8; H and W multiples of the patch size. The
                first view fixes the world frame.
            query_points: (B, N, 2) pixels (column, row) of the first view, to be tracked.
            heads: which heads to run, all that were built when None.
            chunk: views in flight at a time in the aggregator (inference only), None for all.
            dense_chunk: the same for the dense heads.

        Raises:
            ValueError: on sizes that are no multiple of the patch size, or query points without a
                track head.
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
        taps = self.aggregator(images, chunk)
        grid = (images.shape[3] // patch, images.shape[4] // patch)
        return self.decode(taps, grid, query_points, heads, dense_chunk)

    def decode(
        self,
        taps: list[Tap],
        grid: tuple[int, int],
        query_points: Tensor | None = None,
        heads: Sequence[str] | None = None,
        chunk: int | None = None,
    ) -> VGGTOutput:
        """Run the heads on tapped tokens of (rows, cols) = ``grid`` patches per view."""
        heads = self.config.heads if heads is None else heads
        special = self.config.special_tokens
        result = VGGTOutput()
        if "camera" in heads:
            poses = self.camera_head(taps[-1].tokens(last=1).squeeze(2))
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
