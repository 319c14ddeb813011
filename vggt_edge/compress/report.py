"""What a compression did, layer by layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """One quantized layer.

    Fields
        path      in the network.
        scheme    its precision.
        error     relative squared error of its output on the calibration rows; of its weights when
                  there was no calibration.
        nearest   the same of rounding to the nearest.
        how       what was chosen: exponent of the gain, clip, ...
        patch     largest absolute input of patch tokens; 0 without calibration.
        special   the same of camera and register tokens.
        bytes     of codes, scales, bias and gain.
    """

    path: str
    scheme: str
    error: float
    nearest: float
    how: str
    patch: float
    special: float
    bytes: int


@dataclass(frozen=True)
class StageReport:
    """One block, or the camera head.

    Fields
        path   in the network.
        error  relative squared error of its output against the float network's, at the same place
               of the network: errors of blocks before it are in it when they are propagated.
    """

    path: str
    error: float


@dataclass(frozen=True)
class CompressReport:
    """What ``compress`` did.

    Fields
        recipe         name.
        method         name.
        layers         in the order of the network.
        stages         in the order of the network; none without calibration.
        convolutions   that were quantized, rounded to the nearest.
        float_layers   linear layers that stayed float.
        bytes_before   of all tensors of the network.
        bytes_after    the same, afterwards.
        scenes, views  of the calibration.
        seconds        it took.
        runs_on        backend to "real", "simulated" or "no".
        idle           patterns of rules for heads that the network was loaded without.
    """

    recipe: str
    method: str
    layers: tuple[LayerReport, ...]
    stages: tuple[StageReport, ...]
    convolutions: int
    float_layers: int
    bytes_before: int
    bytes_after: int
    scenes: int
    views: int
    seconds: float
    runs_on: dict[str, str]
    idle: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def table(self) -> list[str]:
        """Lines for people: errors by part and kind of layer, and the worst layers."""
        grouped = defaultdict(list)
        for layer in self.layers:
            parts = [part for part in layer.path.split(".") if not part.isdigit()]
            grouped[(".".join(parts), layer.scheme)].append(layer)
        measured = "output" if self.scenes else "weight"
        head = f"{measured} error"
        width = max([len(name) for name, _ in grouped] + [5])
        lines = [f"{'layers':<{width}}  scheme           n  {head:>13}  to nearest        MB"]
        for (name, scheme), rows in grouped.items():
            error = sum(row.error for row in rows) / len(rows)
            plain = sum(row.nearest for row in rows) / len(rows)
            size = sum(row.bytes for row in rows) / 1e6
            lines.append(
                f"{name:<{width}}  {scheme:<14}{len(rows):>4}  {error:13.2e}  {plain:10.2e}"
                f"{size:10.2f}"
            )
        worst = sorted(self.layers, key=lambda layer: -layer.error)[:3]
        lines += [f"  worst: {row.path} {row.error:.2e} ({row.how})" for row in worst]
        if self.stages:
            peak = max(self.layers, key=lambda layer: layer.special)
            lines.append(
                f"  largest input of special tokens {peak.special:.3g}, of patch tokens there "
                f"{peak.patch:.3g}: {peak.path}"
            )
        lines += [f"  rule {match}: for a head this network lacks" for match in self.idle]
        return lines
