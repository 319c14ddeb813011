"""``vggt-edge device``: run a bundle on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import JsonOption, finish


def command(
    bundle: Annotated[
        Path, typer.Argument(help="Folder or zip from export --bundle.", metavar="BUNDLE")
    ],
    benchmark: Annotated[
        Path,
        typer.Option(
            help="LiteRT's benchmark_model or ExecuTorch's executor_runner, built for the phone.",
            metavar="FILE",
        ),
    ],
    accelerator: Annotated[
        str, typer.Option(help="cpu, or gpu for LiteRT.", metavar="NAME")
    ] = "cpu",
    threads: Annotated[int, typer.Option(help="On the CPU.", metavar="N", min=1)] = 4,
    runs: Annotated[int, typer.Option(help="To time.", metavar="N", min=1)] = 20,
    serial: Annotated[
        str | None, typer.Option(help="Of the phone, where several are connected.", metavar="TEXT")
    ] = None,
    adb: Annotated[str, typer.Option(help="Android's adb.", metavar="PROGRAM")] = "adb",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the report.", metavar="FOLDER")
    ] = Path("check"),
    json: JsonOption = False,
) -> None:
    """Run a bundle on a connected Android phone and report as check does.

    Pushes the bundle's files, its golden pictures and the benchmark binary, times it, and compares
    what comes back with the network's own answers. Exits 1 when the phone's answers are wrong.
    """
    from ..export import bundle as bundles
    from ..export import device
    from ..export.gates import environments, gate, report
    from ..files import check_writable

    check_writable(out)
    opened = bundles.read(bundle)

    def prove(context: gate.Context) -> gate.Outcome:
        outputs, facts = device.run(
            context.bundle,
            benchmark,
            device.Adb(adb, serial),
            accelerator=accelerator,
            threads=threads,
            runs=runs,
        )
        return gate.Outcome(outputs, facts)

    context = gate.Context(opened, opened.golden(), environments.folder())
    results = [gate.run(gate.Gate("device", f"a phone, {accelerator}", prove), context)]
    written = report.write(out, results, opened, context.golden)
    summary = report.summary(results, opened)
    facts = results[0].facts
    lines = [
        *report.table(results),
        *(f"  {name:<22}{value}" for name, value in facts.items() if name != "stages"),
        *(f"  {path}" for path in written.values()),
    ]
    finish(lines, {**summary, "outputs": {k: str(v) for k, v in written.items()}}, json)
    if summary["failed"]:
        raise typer.Exit(1)
