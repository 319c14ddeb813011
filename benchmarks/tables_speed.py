"""Tables of docs/PERFORMANCE.md, and of the pocket model's speed in docs/COMPRESSION.md."""

from __future__ import annotations

from table_cells import markdown, read, source, spread


def network(name: str, digits: int) -> list[str]:
    """Seconds of each variant, how much faster than the first ones, and Amdahl's ceiling."""
    data = read(name)
    found = data["variants"]
    against = [key for key in next(iter(found.values())) if key.startswith("times faster")]
    if against[0] == "times faster than upstream bf16 autocast":  # the same as the last
        against = against[1:]
    header = ["variant", "seconds", *against, "depth error", "pose error"]
    header += ["share of what w8a8 quantizes", "if that took no time"]
    rows = [
        [
            variant,
            spread(row["seconds"], digits),
            *(spread(row[key], 2) for key in against),
            f"{row['depth error']:.2g}",
            f"{row['pose error']:.2g}",
            f"{row['share in quantized layers']:.0%}",
            f"{row['Amdahl ceiling']:.1f} times faster",
        ]
        for variant, row in found.items()
    ]
    return [*markdown(header, rows), *source(name)]
