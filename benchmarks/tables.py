"""Writes the tables of docs/*.md that come from results/*.json.

    python benchmarks/tables.py [--check]

A table stands between the lines ``<!-- table NAME -->`` and ``<!-- end -->``; what is between them
is replaced. With ``--check`` nothing is written, and documents that fell behind their results are
named. Means are followed by their 95 % intervals.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import tables_accuracy
import tables_compress
import tables_export
import tables_scale
from table_cells import HOME

BLOCK = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], list[str]]] = {
    "worlds-112": lambda: tables_accuracy.worlds(112),
    "kinds-112": lambda: tables_accuracy.kinds(112),
    "real-112": lambda: tables_accuracy.real(112),
    "real-224": lambda: tables_accuracy.real(224),
    "pocket": tables_accuracy.pocket,
    # A link would lead nowhere from where the card is installed.
    "card": lambda: tables_accuracy.pocket()[:-2],
    "training": tables_accuracy.training,
    "methods": lambda: tables_compress.compressed(ablations=False),
    "ablations": lambda: tables_compress.compressed(ablations=True),
    "float-scores": tables_compress.float_scores,
    "sizes": tables_compress.sizes,
    "pocket-sizes": tables_compress.pocket_sizes,
    "layer-errors": tables_compress.layer_errors,
    "tokens": tables_compress.tokens,
    "gates": tables_export.gates,
    "retrieval": tables_scale.retrieval,
    "modes-walk": lambda: tables_scale.modes("scale_modes_pocket_walk"),
    "modes-redkitchen": lambda: tables_scale.modes("scale_modes_pocket_redkitchen"),
}


def documents() -> list[Path]:
    """Where tables may stand."""
    return sorted([*(HOME / "docs").glob("*.md"), HOME / "vggt_edge/assets/MODEL_CARD.md"])


def filled(text: str) -> str:
    """A document with its tables anew."""
    return BLOCK.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[4], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; say what is behind")
    args = parser.parse_args()
    behind = []
    for path in documents():
        text = path.read_text()
        new = filled(text)
        if new != text:
            behind.append(path.name)
            if not args.check:
                path.write_text(new)
    if behind and args.check:
        sys.exit(f"behind their results: {', '.join(behind)}; run python benchmarks/tables.py")
    print("written: " + ", ".join(behind) if behind else "all tables are as their results")


if __name__ == "__main__":
    main()
