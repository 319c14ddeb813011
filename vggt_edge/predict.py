"""Views and a network to a Prediction: chunking, progress, and back from tensors to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from . import attention, geometry, memory
from .errors import InputError, NumericError, TooLargeError
from .model.config import VGGTConfig
from .model.sparse import KeyCache
from .model.vggt import VGGT, VGGTOutput
from .sparse_plan import SparsePlan
from .types import Cameras, Prediction, Views


def extrinsics_from_encoding(pose: np.ndarray) -> np.ndarray:
    """(..., 3, 4) float64 camera-from-world of (..., 9) pose encodings."""
    rotation = geometry.quaternion_to_matrix(pose[..., 3:7].astype(np.float64))
    return np.concatenate([rotation, pose[..., :3, None]], axis=-1)


def cameras_from_encoding(pose: np.ndarray, size: tuple[int, int]) -> Cameras:
    """Cameras from (S, 9) pose encodings: translation, quaternion xyzw, fields of view (v, h).

    The principal point is the view's middle, (W / 2, H / 2), as VGGT was trained.
    """
    pose = pose.astype(np.float64)
    height, width = size
    # The head's field of view passes a ReLU; a zero must not divide.
    vertical, horizontal = np.maximum(pose[:, 7:9], 1e-3).T
    intrinsics = np.zeros((len(pose), 3, 3))
    intrinsics[:, 0, 0] = width / 2 / np.tan(horizontal / 2)
    intrinsics[:, 1, 1] = height / 2 / np.tan(vertical / 2)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    sizes = np.tile(np.array(size), (len(pose), 1))
    return Cameras(intrinsics, extrinsics_from_encoding(pose), sizes)


def to_tensor(views: Views, device: torch.device) -> torch.Tensor:
    """(1, S, 3, H, W) uint8 on a device; on the CPU the views' own memory."""
    images = np.require(views.images, requirements=("C", "W"))
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2)[None]


@contextmanager
def _progress(model: VGGT, expected: int, show: bool) -> Iterator[None]:
    """A bar that counts transformer blocks, without the network knowing."""
    bar = tqdm(total=expected, desc="predict", unit="block", delay=2, leave=False, disable=not show)
    aggregator = model.aggregator
    blocks = [*aggregator.patch_embed.blocks, *aggregator.frame_blocks, *aggregator.global_blocks]
    handles = [block.mlp.register_forward_hook(lambda *_: bar.update()) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        bar.close()


def _array(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor[0].float().cpu().numpy()


def to_prediction(output: VGGTOutput, views: Views) -> Prediction:
    """A Prediction from the raw output for one batch entry.

    Raises:
        NumericError: when a number is not finite.
    """
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"):
        tensor = getattr(output, name)
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise NumericError(
                f"the network's {name} is not finite: its weights are damaged, or overflow in half "
                "precision; try --dtype float32"
            )
    pose, depth = _array(output.pose_enc), _array(output.depth)
    return Prediction(
        views=views,
        cameras=None if pose is None else cameras_from_encoding(pose, views.size),
        depth=None if depth is None else depth[..., 0],
        depth_confidence=_array(output.depth_conf),
        points=_array(output.world_points),
        points_confidence=_array(output.world_points_conf),
    )


def wanted_heads(config: VGGTConfig, heads: Sequence[str] | None) -> tuple[str, ...]:
    """The heads to run, all but "track" when None.

    Raises:
        InputError: a head the model does not have.
    """
    wanted = tuple(heads) if heads is not None else tuple(h for h in config.heads if h != "track")
    if absent := [head for head in wanted if head not in config.heads or head == "track"]:
        known = ", ".join(h for h in config.heads if h != "track")
        raise InputError(f"the model cannot predict {', '.join(absent)}; it has {known}")
    return wanted


def check_views(config: VGGTConfig, views: Views) -> None:
    """Refuse views the network cannot take.

    Raises:
        InputError: none at all, or of a size that is no multiple of the patch size.
    """
    if not len(views):
        raise InputError("no views to predict from")
    height, width = views.size
    if height % config.patch_size or width % config.patch_size:
        raise InputError(
            f"views of {height}x{width} are no multiple of the patch size {config.patch_size}; "
            "read them with read_views"
        )


@torch.inference_mode()
def predict(
    model: VGGT,
    views: Views,
    *,
    heads: Sequence[str] | None = None,
    plan: SparsePlan | None = None,
    progress: bool = False,
) -> Prediction:
    """Run the network once over all views.

    Args:
        model: from ``load``; its device and dtype are used, and its attention if ``make_sparse``
            has thinned it out.
        views: from ``read_views``; the first one fixes the world frame.
        heads: which of the model's heads to run, all but "track" when None.
        plan: which keys each view sees; made for these views when None and the model is sparse.
        progress: show a bar on standard error for work over two seconds.

    Raises:
        InputError: a head the model does not have, or views of a size it cannot take.
        TooLargeError: when the run would not fit in memory.
    """
    config = model.config
    wanted = wanted_heads(config, heads)
    check_views(config, views)
    plan = attention.plan_for(model, views) if plan is None else plan
    parameter = next(model.parameters())
    memory.require(
        replace(config, heads=wanted),
        len(views),
        views.size,
        parameter.element_size(),
        parameter.device,
        plan=plan,
    )
    return run(model, views, wanted, plan=plan, progress=progress)


@torch.inference_mode()
def run(
    model: VGGT,
    views: Views,
    heads: tuple[str, ...],
    *,
    plan: SparsePlan | None = None,
    cache: KeyCache | None = None,
    progress: bool = False,
) -> Prediction:
    """One pass over views and heads that were checked; ``plan`` and ``cache`` as in ``forward``.

    Raises:
        TooLargeError: torch ran out of memory.
    """
    config, (height, width) = model.config, views.size
    parameter = next(model.parameters())
    chunk = memory.aggregator_chunk(config, height, width)
    steps = -(-len(views) // chunk) * (config.encoder_depth + 2 * config.depth)
    images = to_tensor(views, parameter.device)
    try:
        with _progress(model, steps, progress):
            output = model(
                images,
                heads=heads,
                chunk=chunk,
                dense_chunk=memory.dense_chunk(height, width),
                plan=plan,
                cache=cache,
            )
    except RuntimeError as error:  # torch's own out-of-memory errors among them
        if "out of memory" in str(error) or "allocate memory" in str(error):
            raise TooLargeError(
                f"{len(views)} views of {width}x{height} ran out of memory on "
                f"{parameter.device.type}; use fewer views (--limit) or a smaller --size"
            ) from error
        raise
    return to_prediction(output, views)
