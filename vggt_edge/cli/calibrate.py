"""``vggt-edge calibrate``: pictures to calibrate a compression with, chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, JsonOption, finish, on_terminal


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of pictures, or of one folder a scene. Each is a group of its own for "
            "the filter.",
            metavar="FOLDERS",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the set.", metavar="FOLDER")
    ] = Path("set"),
    model: Annotated[
        str,
        typer.Option(help="Network that will be compressed: pocket, a file, or a hub name."),
    ] = "pocket",
    views: Annotated[int, typer.Option(help="Views of a scene.", metavar="N", min=2)] = 10,
    clusters: Annotated[int, typer.Option(help="Clusters of scenes.", metavar="N", min=1)] = 5,
    each: Annotated[int, typer.Option(help="Scenes of each cluster.", metavar="M", min=1)] = 4,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Scenes to choose from; by default three times as many as are chosen.",
            metavar="N",
            min=1,
        ),
    ] = None,
    whisker: Annotated[
        float,
        typer.Option(
            help="The filter removes what lies outside the quartiles by so many times their "
            "distance.",
            metavar="K",
            min=0,
        ),
    ] = 1.5,
    size: Annotated[
        int | None,
        typer.Option(help="Longer side of the views; by default as in reconstruct.", metavar="PX"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.", metavar="N", min=0)] = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Choose pictures to calibrate a compression with.

    Scenes whose statistics are out of the ordinary are removed, the rest are grouped by how their
    views relate, and every group gives equally many. The set and its manifest go into a folder. The
    same command goes on where it was interrupted.
    """
    from .. import api
    from ..compress.calibrate import calibrate
    from ..hardware import keep_heap
    from ..weights import describe, load

    config = describe(model).config
    keep_heap()
    manifest = calibrate(
        load(model, heads=(), device=device),
        folders,
        out,
        views=views,
        clusters=clusters,
        each=each,
        candidates=candidates,
        size=size or api.default_size(config),
        seed=seed,
        whisker=whisker,
        progress=on_terminal(),
    )
    pool = manifest["candidates"]
    sizes = [
        sum(one["cluster"] == label for one in pool)
        for label in range(max(one["cluster"] for one in pool) + 1)
    ]
    lines = [
        f"{out}: {len(manifest['scenes'])} scenes of {views} views",
        f"  candidates  {len(pool)}, of which the filter removed {manifest['removed']}",
        f"  clusters    {len(sizes)}, of {', '.join(map(str, sizes))} candidates",
    ]
    if manifest["missing"]:
        lines.append(
            f"  missing     {manifest['missing']} scenes of {clusters * each} asked for: no more "
            "candidates passed; raise --whisker or --candidates"
        )
    summary = {key: manifest[key] for key in ("settings", "removed", "missing", "scenes")}
    finish(lines, {"folder": str(out), "clusters": sizes, **summary}, json)
