"""``vggt-edge calibrate``: pictures to calibrate a compression with, chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .report import DeviceOption, JsonOption, finish, on_terminal

if TYPE_CHECKING:
    from ..recording import Recording


def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of pictures, or of one folder a scene. Each is a group of its own for "
            "the filter.",
            metavar="FOLDERS",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Take the pictures of a dataset, as evaluate names them; its depth maps are left "
            "alone.",
            metavar="NAME",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the dataset.", metavar="FOLDER")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the dataset; by default train where there is one, else its first.",
            metavar="NAME",
        ),
    ] = None,
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

    recordings = _recordings(dataset, root, split)
    config = describe(model).config
    keep_heap()
    manifest = calibrate(
        load(model, heads=(), device=device),
        folders or [],
        out,
        views=views,
        clusters=clusters,
        each=each,
        candidates=candidates,
        size=size or api.default_size(config),
        seed=seed,
        whisker=whisker,
        recordings=recordings,
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
    path, peak = max(manifest["largest"].items(), key=lambda item: item[1]["special"])
    lines.append(
        f"  largest     {peak['special']:g} in special tokens, {peak['patch']:g} in patch tokens, "
        f"into {path}"
    )
    if manifest["skipped"]:
        lines.append(
            f"  skipped     {manifest['skipped']} sequences of fewer than {views} pictures"
        )
    if manifest["missing"]:
        lines.append(
            f"  missing     {manifest['missing']} scenes of {clusters * each} asked for: no more "
            "candidates passed; raise --whisker or --candidates"
        )
    summary = {
        key: manifest[key]
        for key in ("settings", "removed", "skipped", "missing", "largest", "scenes")
    }
    finish(lines, {"folder": str(out), "clusters": sizes, **summary}, json)


def _recordings(name: str | None, root: Path | None, split: str | None) -> list[Recording]:
    """Of the dataset that was named, if one was."""
    from ..errors import InputError

    if name is None:
        if root is not None or split is not None:
            raise InputError("--root and --split are of a dataset: name it with --dataset")
        return []
    from ..evaluate.datasets import dataset

    found = dataset(name)
    if root is None:
        raise InputError(f"--dataset {name} needs --root: {found.fetch}")
    usual = "train" if "train" in found.splits else found.splits[0]
    return found.read(root, split or usual)
