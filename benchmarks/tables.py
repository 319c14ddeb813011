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
import tables_speed
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
    "budget": tables_compress.budget,
    "fragile": tables_compress.fragile,
    "network-2x224": lambda: tables_speed.network("network_2x224x224", 2),
    "network-8x294": lambda: tables_speed.network("network_8x294x392", 1),
    "pocket-2x112": lambda: tables_speed.network("network_pocket_2x112x112", 3),
    "pocket-2x224": lambda: tables_speed.network("network_pocket_2x224x224", 3),
    "pocket-8x224": lambda: tables_speed.network("network_pocket_8x224x224", 3),
    "gates": tables_export.gates,
    "litert": lambda: tables_export.exported("export_litert"),
    "litert-1b": lambda: tables_export.exported("export_litert_1b"),
    "litert-252x336": lambda: tables_export.exported("export_litert_2x252x336"),
    "litert-518x392": lambda: tables_export.exported("export_litert_2x518x392"),
    "executorch": lambda: tables_export.exported("export_executorch"),
    "executorch-1b": lambda: tables_export.exported("export_executorch_1b"),
    "retrieval": tables_scale.retrieval,
    "separation": tables_scale.separation,
    "modes-walk": lambda: tables_scale.modes("scale_modes_pocket_walk"),
    "modes-ends": lambda: tables_scale.modes("scale_modes_pocket_walk_ends"),
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
