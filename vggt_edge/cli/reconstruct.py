"""``vggt-edge reconstruct``: photographs or video to a 3D scene."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AttentionOption, FormatsOption, KnownCamerasOption, WatchOption
from .report import DeviceOption, DtypeOption, JsonOption, finish, on_terminal


def command(
    context: typer.Context,
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
    formats: FormatsOption = None,
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
    attention: AttentionOption = None,
    anchors: Annotated[int, typer.Option(help="K, how many anchors.", metavar="K", min=1)] = 25,
    retrieval: Annotated[
        str,
        typer.Option(
            help="What tells which views are alike: tokens (the model's own encoder) or megaloc (a "
            "second network of 0.9 GB, fetched on first use).",
            metavar="METHOD",
        ),
    ] = "tokens",
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Run the anchors once, then all other views a few at a time: memory does not grow "
            "with the views, each view's depth and camera are written to FOLDER as they come, and "
            "the same command goes on where it was stopped.",
        ),
    ] = False,
    watch: WatchOption = None,
    clusters: Annotated[
        int | None,
        typer.Option(
            help="Divide the views into N overlapping clusters, reconstruct one after the other "
            "and join them; the same command goes on where it was stopped.",
            metavar="N",
            min=1,
        ),
    ] = None,
    cluster_size: Annotated[
        int | None,
        typer.Option(help="The same, by the most views in a cluster.", metavar="VIEWS", min=1),
    ] = None,
    keep_outliers: Annotated[
        bool,
        typer.Option(
            "--keep-outliers", help="In clusters: keep views that resemble no other, too."
        ),
    ] = False,
    no_verify: Annotated[
        bool,
        typer.Option(
            "--no-verify",
            help="In clusters: believe retrieval where few pictures tie places together.",
        ),
    ] = False,
    georeference: Annotated[
        bool,
        typer.Option(
            "--georeference",
            help="Scale the scene to metres by the pictures' GPS; how it lies on Earth is written "
            "to georeference.json.",
        ),
    ] = False,
    known_cameras: KnownCamerasOption = None,
    bundle_adjust: Annotated[
        bool,
        typer.Option(
            "--bundle-adjust",
            help="Match patches between the pictures and adjust cameras and depths to them.",
        ),
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            help="Who runs the batches of --stream or the clusters: local (this process) or ray.",
            metavar="NAME",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="The Ray cluster's head as host:port, or auto; by default a Ray on this machine.",
            metavar="ADDR",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Ray workers; by default one a machine, or one an accelerator.",
            metavar="N",
            min=1,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Turn pictures or video into a 3D scene."""
    # The libraries behind these take seconds to load; --help should not.
    from .. import api, memory, outputs
    from ..attention import make_sparse, needs_likeness, suited
    from ..errors import InputError
    from ..evaluate.known_cameras import read_known_cameras
    from ..files import check_writable
    from ..hardware import keep_heap, pick_device, pick_dtype
    from ..images import check_inputs, read_views
    from ..outputs.frames import MANIFEST, read_stream
    from ..retrieval import METHODS, load_megaloc
    from ..scene.fuse import fuse
    from ..scene.known_cameras import match
    from ..scene.reconstruct import reconstruct
    from ..sparsity import Sparsity
    from ..weights import describe, load
    from . import clusters as in_clusters
    from . import executors, watching
    from .streaming import run as run_stream

    begin = time.monotonic()
    # What is wrong with the options, the inputs and the output is said before the weights are
    # loaded, which can take minutes.
    stream = stream or watch is not None
    if formats is None:
        formats = "" if stream else "glb,html,colmap"
    names = [name.strip() for name in formats.split(",") if name.strip()]
    wanted = outputs.check_formats(names) if names or not stream else ()
    kind_of_attention = attention or ("anchors" if stream else "auto")
    sparsity = Sparsity(kind_of_attention, anchors=anchors)
    if stream and sparsity.mode not in ("anchors", "auto"):
        raise InputError(f"--stream needs --attention anchors, not {sparsity.mode}")
    if retrieval not in METHODS:
        raise InputError(f"unknown retrieval {retrieval!r}: use {', '.join(METHODS)}")
    if watch is not None and (len(inputs) != 1 or limit is not None):
        raise InputError("--watch takes one folder or video and no --limit")
    if watch is not None and Path(inputs[0]).is_dir():
        if fps or every:
            raise InputError("--fps and --every are for videos, not for a folder: leave them out")
        if not watch >= 1:
            raise InputError("--watch needs at least 1 second to see that a file has come whole")
    for given, option in ((keep_outliers, "--keep-outliers"), (no_verify, "--no-verify")):
        if given and not (clusters or cluster_size):
            raise InputError(f"{option} needs --clusters or --cluster-size: add one of them")
    if stream and (clusters or cluster_size or georeference or bundle_adjust):
        raise InputError(
            "--stream does not go with --clusters, --cluster-size, --georeference or "
            "--bundle-adjust"
        )
    if known_cameras is not None and (stream or georeference):
        raise InputError("--known-cameras does not go with --stream, --watch or --georeference")
    in_clusters.require_packages(bool(clusters or cluster_size), bundle_adjust)
    if point_head and (clusters or cluster_size):
        raise InputError("--point-head does not go with --clusters or --cluster-size")
    parted = stream or bool(clusters or cluster_size)
    executors.check(executor, address, workers, parted)
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
    if watch is None:
        check_inputs(inputs)
    else:
        watching.check(inputs[0])
    known = None if known_cameras is None else read_known_cameras(known_cameras)
    weights = describe(model)
    sparsity = suited(weights.config, sparsity)
    machines = executors.open_executor(context, executor, address, workers, target)
    progress = on_terminal()
    size = size or api.default_size(weights.config)
    patch = weights.config.patch_size
    views = None
    if watch is None:
        views = read_views(
            inputs,
            size=size,
            mode=mode,
            patch=patch,
            fps=fps,
            every=every,
            limit=limit,
            progress=progress,
        )
    dials = None
    if views is not None:
        dials = in_clusters.cluster_size(len(views), clusters, cluster_size)
        if georeference:
            in_clusters.require_positions(views)
        if known is not None:
            match(views, known)
    heads = ("camera", "depth", "point") if point_head else ("camera", "depth")
    parameters = sum(weights.parameters[p] for p in ("aggregator", *(f"{h}_head" for h in heads)))
    if views is not None and not stream:
        at_once = min(len(views), dials[0]) if dials else len(views)
        memory.require(
            replace(weights.config, heads=heads),
            at_once,
            views.size,
            precision.itemsize,
            target,
            weights=parameters * precision.itemsize,
            plan=sparsity.largest(at_once, weights.config.depth),
        )
    network = load(weights.path, heads=heads, device=target, dtype=precision)
    megaloc = None
    if retrieval == "megaloc" and (dials or sparsity.mode != "dense"):
        megaloc = load_megaloc(device=target, dtype=precision)
    make_sparse(network, sparsity.mode, k=sparsity.anchors, retrieval=megaloc)
    keep: dict[str, Any] = {
        "percentile": confidence_percentile,
        "mask_sky": mask_sky,
        "mask_edges": mask_edges,
        "max_points": max_points,
        "min_consistent_views": min_consistent_views,
        "source": "points" if point_head else "depth",
    }
    streamed, scenes, left_out = None, [], {}
    if stream or views is None:
        coming: AbstractContextManager[Any] = nullcontext(views)
        if watch is not None:
            how: dict[str, Any] = {"size": size, "mode": mode, "patch": patch}
            coming = watching.views_of(inputs[0], quiet=watch, fps=fps, every=every, **how)
        with coming as source:
            streamed = run_stream(network, source, out, heads, progress, machines)
        if wanted:
            scenes = [fuse(read_stream(out), **keep)]
        count, (height, width) = streamed.views, streamed.size
    else:
        count, (height, width) = len(views), views.size
        if dials:
            found = in_clusters.run(
                network,
                megaloc or network,
                views,
                out,
                dials,
                keep_outliers,
                not no_verify,
                progress,
                keep,
                machines,
            )
            scenes, left_out = list(found.scenes), found.left_out
        else:
            scenes = [reconstruct(network, views, progress=progress, **keep)]
    places = in_clusters.folders(scenes, out)
    if bundle_adjust:
        scenes = [in_clusters.adjusted(scene) for scene in scenes]
    if georeference:
        scenes = [in_clusters.to_metres(*pair) for pair in zip(scenes, places, strict=True)]
    if known is not None:
        scenes = [in_clusters.to_known(*pair, known) for pair in zip(scenes, places, strict=True)]
    results: dict[str, tuple[Path, str]] = {}
    for scene, place in zip(scenes, places, strict=True):
        written = api.write(scene, place, wanted, full_resolution=full_resolution)
        part = "" if place == out else f"{place.name}/"
        results |= {part + name: (path, outputs.FORMATS[name]) for name, path in written.items()}
    points = sum(len(scene.points) for scene in scenes)
    seconds = time.monotonic() - begin
    at_once = min(count, dials[0]) if dials else count
    kind = "anchors" if stream else sparsity.mode_for(at_once)
    likeness = retrieval if stream or dials or needs_likeness(network, at_once) else None
    by = f" by {likeness}" if likeness else ""
    if streamed:
        results["stream"] = (out / MANIFEST, "cameras, a line a view; depth in frames/")
    column = max(len(str(path)) for path, _ in results.values())
    lines = [
        f"{count} view{'s' * (count != 1)} of {width}x{height}, "
        + (f"{points:,} points, " if scenes else "")
        + (f"{len(scenes)} scenes that nothing ties together, " if len(scenes) > 1 else "")
        + (f"{len(left_out)} left out, " if left_out else "")
        + (
            f"{count - streamed.new} of them there already, "
            if streamed and streamed.new < count
            else ""
        )
        + (f"attention: {kind}{by}, " if kind != "dense" else "")
        + f"{seconds:.1f} s",
        *(f"  {path!s:<{column}}  {what}" for path, what in results.values()),
    ]
    data: dict[str, Any] = {
        "views": count,
        "width": width,
        "height": height,
        "points": points if scenes else None,
        "seconds": round(seconds, 3),
        "model": str(weights.path),
        "device": str(target),
        "dtype": str(precision).removeprefix("torch."),
        "attention": kind,
        "retrieval": likeness,
        "outputs": {name: str(path) for name, (path, _) in results.items()},
    }
    if streamed:
        data["new"] = streamed.new
    if dials:
        data |= {"parts": [len(scene.views) for scene in scenes], "left_out": left_out}
    if georeference or known is not None:
        data["units"] = [scene.units for scene in scenes]
    finish(lines, data, json)
