"""``vggt-edge reconstruct``: photographs or video to a 3D scene."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, DtypeOption, JsonOption, finish, on_terminal

FORMATS_HELP = (
    "Comma-separated, of glb, ply, html (a 3D viewer), colmap, colmap-text, transforms "
    "(nerfstudio), npz, depth (16-bit PNG), exr, rerun."
)


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Folders, pictures, globs, videos or URLs.", metavar="INPUT"),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results.", metavar="FOLDER")
    ] = Path("out"),
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="pocket (embedded), a weight file, or a hub name such as facebook/VGGT-1B.",
            metavar="MODEL",
        ),
    ] = "pocket",
    formats: Annotated[
        str, typer.Option("--formats", "-f", help=FORMATS_HELP, metavar="NAMES")
    ] = "glb,html,colmap",
    size: Annotated[
        int | None,
        typer.Option(
            help="Longer side of the views; by default 518, or 224 for pocket.",
            metavar="PIXELS",
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="How pictures become views: keep (their aspect ratio), or crop or pad as the "
            "original VGGT does.",
            metavar="MODE",
        ),
    ] = "keep",
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a second to take from videos; by default 2, at most 120 a video.",
            metavar="RATE",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(help="Take every N-th frame of videos, instead of --fps.", metavar="N", min=1),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Use at most N views, spread evenly over the inputs.", metavar="N", min=1
        ),
    ] = None,
    confidence_percentile: Annotated[
        float,
        typer.Option(
            help="Drop the least confident PERCENT of the points.",
            metavar="PERCENT",
            min=0,
            max=100,
        ),
    ] = 20.0,
    max_points: Annotated[
        int, typer.Option(help="Keep at most N points.", metavar="N", min=1)
    ] = 1_000_000,
    mask_sky: Annotated[bool, typer.Option("--mask-sky", help="Drop what looks like sky.")] = False,
    mask_edges: Annotated[bool, typer.Option(help="Drop flying pixels at depth edges.")] = True,
    min_consistent_views: Annotated[
        int,
        typer.Option(
            help="Keep only points that the depth of at least N other views agrees with.",
            metavar="N",
            min=0,
        ),
    ] = 0,
    point_head: Annotated[
        bool,
        typer.Option(
            "--point-head", help="Take the points from the point head, not from depth and cameras."
        ),
    ] = False,
    full_resolution: Annotated[
        bool,
        typer.Option(
            "--full-resolution",
            help="Write depth maps (formats depth, exr) at the size of the source pictures.",
        ),
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Turn pictures or video into a 3D scene."""
    # The libraries behind these take seconds to load; --help should not.
    from .. import api, memory, outputs
    from ..errors import InputError
    from ..files import check_writable
    from ..hardware import keep_heap, pick_device, pick_dtype
    from ..images import check_inputs, read_views
    from ..scene.reconstruct import reconstruct
    from ..weights import describe, load

    begin = time.monotonic()
    # What is wrong with the options, the inputs and the output is said before the weights are
    # loaded, which can take minutes.
    wanted = outputs.check_formats([name.strip() for name in formats.split(",") if name.strip()])
    if confidence_percentile >= 100:
        raise InputError(
            "--confidence-percentile 100 drops every point: give a percentile below 100"
        )
    if full_resolution and not {"depth", "exr"} & set(wanted):
        raise InputError("--full-resolution is about depth maps: add depth or exr to --formats")
    check_writable(out)
    target = pick_device(device)
    keep_heap()
    precision = pick_dtype(dtype, target)
    check_inputs(inputs)
    weights = describe(model)
    progress = on_terminal()
    views = read_views(
        inputs,
        size=size or api.default_size(weights.config),
        mode=mode,
        patch=weights.config.patch_size,
        fps=fps,
        every=every,
        limit=limit,
        progress=progress,
    )
    heads = ("camera", "depth", "point") if point_head else ("camera", "depth")
    parameters = sum(weights.parameters[p] for p in ("aggregator", *(f"{h}_head" for h in heads)))
    memory.require(
        replace(weights.config, heads=heads),
        len(views),
        views.size,
        precision.itemsize,
        target,
        weights=parameters * precision.itemsize,
    )
    network = load(weights.path, heads=heads, device=target, dtype=precision)
    scene = reconstruct(
        network,
        views,
        percentile=confidence_percentile,
        mask_sky=mask_sky,
        mask_edges=mask_edges,
        max_points=max_points,
        min_consistent_views=min_consistent_views,
        source="points" if point_head else "depth",
        progress=progress,
    )
    written = api.write(scene, out, wanted, full_resolution=full_resolution)
    seconds = time.monotonic() - begin
    height, width = views.size
    column = max(len(str(path)) for path in written.values())
    lines = [
        f"{len(views)} view{'s' * (len(views) != 1)} of {width}x{height}, "
        f"{len(scene.points):,} points, {seconds:.1f} s",
        *(f"  {path!s:<{column}}  {outputs.FORMATS[name]}" for name, path in written.items()),
    ]
    data = {
        "views": len(views),
        "width": width,
        "height": height,
        "points": len(scene.points),
        "seconds": round(seconds, 3),
        "model": str(weights.path),
        "device": str(target),
        "dtype": str(precision).removeprefix("torch."),
        "outputs": {name: str(path) for name, path in written.items()},
    }
    finish(lines, data, json)
