"""What an export made: its files, and how near they are to the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .litert import Port
from .module import Agreement
from .shape import Shape


@dataclass(frozen=True)
class ExportedMethod:
    """A stage of the network as a method of an ExecuTorch program; see ``ExportedFile``."""

    stage: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    operators: Mapping[str, int]


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export, in the order they run.

    ``inputs`` and ``outputs`` are names to ``litert.Port``: shape, type and scale. ``methods`` are
    an ExecuTorch program's by their names, in the order they run; none for other files. The inputs
    of such a program are its first method's, its outputs those of them all.
    """

    path: Path
    stage: str
    bytes: int
    sha256: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    operators: Mapping[str, int]
    methods: Mapping[str, ExportedMethod] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What an export made and how near it is to the network.

    Fields
        files      the artefact, one file or several stages.
        target, recipe, shape, outputs  what was asked for.
        layout     of the images: "VHWC" or "VCHW"; float32 in [0, 1], RGB, first view first.
        rewrite    the rewritten network beside the network, float32.
        artefact   the files, run on this machine, beside the network; empty where they were not.
        warnings   of the lint.
        seconds    name of a step to its duration.
        versions   of the packages.
        exceptions layer path to the recipe that layer got instead.
        ran        whether the files were run on this machine, which some targets' cannot be.
        profile    what ExecuTorch's run took, as etdump, if asked for.
    """

    files: tuple[ExportedFile, ...]
    target: str
    recipe: str
    shape: Shape
    outputs: tuple[str, ...]
    layout: str
    rewrite: tuple[Agreement, ...]
    artefact: tuple[Agreement, ...]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    exceptions: Mapping[str, str] = field(default_factory=dict)
    ran: bool = True
    profile: Path | None = None

    @property
    def status(self) -> str:
        """How far the files are proven here: "run and compared" or "lowered, not run"."""
        return "run and compared" if self.ran else "lowered, not run"

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        for file in data["files"]:
            file["path"] = str(file["path"])
        data["profile"] = self.profile and str(self.profile)
        about = {"bytes": self.bytes, "status": self.status}
        return data | about | {"range": [0.0, 1.0], "channels": "RGB"}
