"""``vggt-edge info`` and ``vggt-edge fetch``: what a weight file is, and where to get one."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Annotated

import typer

from .report import JsonOption, finish, size_text


def info(
    file: Annotated[str, typer.Argument(help="pocket, a weight file, or a fetched hub name.")],
    views: Annotated[
        int, typer.Option("--views", "-s", help="Estimate the memory of a run of so many views.")
    ] = 8,
    size: Annotated[str, typer.Option(help="Size of the views, HEIGHTxWIDTH.")] = "392x518",
    json: JsonOption = False,
) -> None:
    """Say what a weight file holds: parts, precision, recipe, licence, and the memory it needs."""
    from .. import memory
    from ..errors import InputError
    from ..hardware import pick_device, pick_dtype
    from ..weights import describe

    try:
        height, width = (int(part) for part in size.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--size {size}: give HEIGHTxWIDTH, such as 392x518") from error
    header = describe(file)
    parts: dict[str, int] = defaultdict(int)
    for name, shape in header.shapes.items():
        count = 1
        for extent in shape:
            count *= extent
        parts[name.split(".", 1)[0]] += count
    total = sum(parts.values())
    device = pick_device()
    dtype = pick_dtype(device=device)
    run = memory.run_bytes(header.config, views, height, width, dtype.itemsize)
    stored = Counter(header.dtypes.values())
    config = header.config
    lines = [
        f"{header.path} ({size_text(header.path.stat().st_size)})",
        f"  parameters  {total / 1e6:.1f} M",
        *(f"    {name:<14}{count / 1e6:8.1f} M" for name, count in sorted(parts.items())),
        f"  network     width {config.width}, encoder {config.encoder_depth} blocks, "
        f"{config.depth} alternating pairs, patch {config.patch_size}",
        f"  heads       {', '.join(config.heads)}",
        f"  stored as   {', '.join(f'{name} ({count} tensors)' for name, count in stored.items())}",
        f"  recipe      {header.recipe or 'none (float)'}",
        f"  licence     {header.license}",
        f"  here        {device.type}, {str(dtype).removeprefix('torch.')}: weights "
        f"{size_text(total * dtype.itemsize)}, a run of {views} views of {width}x{height} "
        f"about {size_text(run)} more",
    ]
    data = {
        "file": str(header.path),
        "bytes": header.path.stat().st_size,
        "parameters": total,
        "parts": dict(parts),
        "config": config.to_dict(),
        "stored": dict(stored),
        "recipe": header.recipe,
        "license": header.license,
        "run_bytes": run,
        "views": views,
    }
    finish(lines, data, json)


def fetch(
    name: Annotated[str, typer.Argument(help="A hub name, such as facebook/VGGT-1B.")],
    json: JsonOption = False,
) -> None:
    """Fetch weights from the Hugging Face hub, resuming an interrupted download."""
    from ..weights import locate

    path = locate(name)
    finish([str(path)], {"file": str(path)}, json)
