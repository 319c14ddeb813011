"""``vggt-edge info`` and ``vggt-edge fetch``: what a weight file is, and where to get one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from .report import DeviceOption, DtypeOption, JsonOption, finish, size_text

if TYPE_CHECKING:
    from ..compress.foreign import Artefact


def info(
    file: Annotated[
        str, typer.Argument(help="pocket (embedded), a weight file, or a hub name.", metavar="FILE")
    ],
    views: Annotated[
        int, typer.Option(help="Estimate the memory of a run of N views.", metavar="N", min=1)
    ] = 8,
    size: Annotated[
        int | None,
        typer.Option(
            help="Longer side of these views, of aspect ratio 4:3; by default as in reconstruct.",
            metavar="PIXELS",
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show what weights hold and the memory they need.

    Parameters of each part, architecture, precision, compression recipe, licence, and the estimated
    memory of a run on this machine. Also says what files of QuantVGGT and QVGGT are.
    """
    from .. import api, memory
    from ..compress import foreign
    from ..errors import CheckpointError
    from ..hardware import DTYPES, available_memory, pick_device, pick_dtype
    from ..kernels.build import available, reason
    from ..model import backends
    from ..preprocess import place
    from ..weights import describe

    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    try:
        weights = describe(file)
    except CheckpointError:
        artefact = _foreign(file)
        if artefact is None:
            raise
        facts = {"file": str(artefact.path), "kind": artefact.kind, **artefact.facts}
        finish([*foreign.lines(artefact), "  open it with vggt-edge convert"], facts, json)
        return
    config = weights.config
    longer = size or api.default_size(config)
    height, width = place([(3, 4)], "keep", longer, config.patch_size)[0].view
    parts = weights.parameters
    parameters = sum(parts.values())
    stored = Counter(weights.dtypes.values())
    size_on_disk = weights.path.stat().st_size
    loaded = parameters * precision.itemsize
    runs: dict[str, str] = {}
    simulated: set[str] = set()
    if weights.recipe:
        loaded = size_on_disk  # packed in memory as in the file
        kinds = {rule.scheme for rule in weights.recipe.rules if rule.scheme}
        runs = {scheme.name: backends.choose(scheme, target) for scheme in kinds}
        simulated = {scheme.name for scheme in kinds if backends.simulates(scheme, target)}
    run = memory.run_bytes(config, views, height, width, precision.itemsize)
    free = available_memory(target)
    kind = next(name for name, known in DTYPES.items() if known == precision)
    lines = [
        f"{weights.path} ({size_text(size_on_disk)})",
        f"  parameters  {parameters / 1e6:.1f} M",
        *(f"    {name:<14}{count / 1e6:8.1f} M" for name, count in sorted(parts.items())),
        f"  network     width {config.width}, encoder {config.encoder_depth} blocks, "
        f"{config.depth} alternating pairs, patch {config.patch_size}",
        f"  heads       {', '.join(config.heads)}",
        f"  stored as   {', '.join(f'{name} ({count} tensors)' for name, count in stored.items())}",
        f"  recipe      {weights.recipe.name if weights.recipe else 'none (float)'}",
        *(
            f"  runs as     {name} on {target}: {backend}"
            f"{' (simulated by float products: small, but no faster)' * (name in simulated)}"
            for name, backend in sorted(runs.items())
        ),
        f"  kernels     {'built, for this CPU' if available() else f'none: {reason()}'}",
        f"  licence     {weights.license}",
        f"  memory      {kind} on {target}: {size_text(loaded)} of weights, and about "
        f"{size_text(run)} for {views} views of {width}x{height}; {size_text(free)} are free",
    ]
    data = {
        "file": str(weights.path),
        "bytes": size_on_disk,
        "parameters": parameters,
        "parts": dict(parts),
        "config": config.to_dict(),
        "stored": dict(stored),
        "recipe": weights.recipe.name if weights.recipe else None,
        "runs_as": runs,
        "runs_on": weights.recipe.runs_on if weights.recipe else None,
        "kernels": available(),
        "license": weights.license,
        "device": str(target),
        "dtype": kind,
        "weights_bytes": loaded,
        "views": views,
        "width": width,
        "height": height,
        "run_bytes": run,
        "free_bytes": free,
    }
    finish(lines, data, json)


def _foreign(file: str) -> Artefact | None:
    """What a file that is none of ours is, if another project's."""
    from ..compress import foreign
    from ..errors import CheckpointError

    try:
        return foreign.identify(file)
    except CheckpointError:
        return None


def fetch(
    name: Annotated[
        str,
        typer.Argument(help="A hub name, such as facebook/VGGT-1B.", metavar="NAME"),
    ],
    json: JsonOption = False,
) -> None:
    """Download weights from the Hugging Face hub.

    An interrupted download is resumed; one that is there already is not repeated.
    """
    from ..weights import locate

    path = locate(name)
    lines = [f"{path} ({size_text(path.stat().st_size)})"]
    finish(lines, {"file": str(path), "bytes": path.stat().st_size}, json)
