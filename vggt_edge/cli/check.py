"""``vggt-edge check``: prove a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import JsonOption, finish, on_terminal


def command(
    bundle: Annotated[
        Path, typer.Argument(help="Folder or zip from export --bundle.", metavar="BUNDLE")
    ],
    gates: Annotated[
        str,
        typer.Option(
            help="all, or comma-separated of torch, litert-cpu, litert-arm64, litert-gpu, "
            "executorch-xnnpack, npu-partitions, npu-numerics.",
            metavar="NAMES",
        ),
    ] = "all",
    model: Annotated[
        str | None,
        typer.Option(
            help="The network that was exported, for the gates that recompute it.", metavar="MODEL"
        ),
    ] = None,
    environments: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the gates' environments, made by `make gates`; by default "
            "$VGGT_EDGE_ENVS or .envs.",
            metavar="FOLDER",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Of a runtime.", metavar="N", min=1)] = 2,
    timeout: Annotated[
        float, typer.Option(help="Seconds one gate may take.", metavar="SECONDS", min=1)
    ] = 1800,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the report.", metavar="FOLDER")
    ] = Path("check"),
    json: JsonOption = False,
) -> None:
    """Prove an exported bundle without a phone.

    Every gate runs the bundle's files on its golden pictures and compares depth and cameras with
    the network's own and with the truth. A gate that cannot run here is skipped and says what it
    needs; skipped is not passed. Exits 1 when a gate fails, or when none could run.
    """
    from ..export import bundle as bundles
    from ..export.gates import environments as places
    from ..export.gates import gate, proofs, report
    from ..files import check_writable
    from ..weights import load

    chosen = proofs.find_gates(gates)
    check_writable(out)
    opened = bundles.read(bundle)
    context = gate.Context(
        opened,
        opened.golden(),
        places.folder(environments),
        None if model is None else load(model, dtype="float32", device="cpu"),
        threads,
        timeout,
    )
    results = []
    for one in chosen:
        if on_terminal():
            typer.echo(f"{one.name} ...", err=True)
        results.append(gate.run(one, context))
    written = report.write(out, results, opened, context.golden)
    summary = report.summary(results, opened)
    lines = [*report.table(results), "", *(f"  {path}" for path in written.values())]
    outputs = {kind: str(path) for kind, path in written.items()}
    finish(lines, {**summary, "outputs": outputs}, json)
    if summary["failed"] or not summary["passed"]:
        raise typer.Exit(1)
