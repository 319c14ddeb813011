"""What networks are exported for: the form each target takes, and the recipes it can run."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .shape import Form

# Safe where squares and sums are fp16: a channel of 4,000 would overflow otherwise.
HALF_PRECISION_GAIN = 1 / 64


@dataclass(frozen=True)
class Target:
    """One runtime on one kind of processor.

    Fields
        name     as on the command line.
        runs     what runs it, for people.
        form     how the network is written for it.
        recipes  the precisions it can run, the first one the default.
        graph_limit  bytes of weights one graph may hold, None for any.
        translates   whether it also takes recipes of ``vggt_edge.recipe``.
    """

    name: str
    runs: str
    form: Form
    recipes: tuple[str, ...]
    graph_limit: int | None = None
    translates: bool = False

    @property
    def runtime(self) -> str:
        """What loads its files: "litert" or "executorch"."""
        return self.name.partition("-")[0]

    def check_recipe(self, recipe: str) -> str:
        """The recipe, if this target can run it.

        Raises:
            InputError: with those it can.
        """
        if recipe not in self.recipes and not self.translates:
            raise InputError(
                f"recipe {recipe!r}: target {self.name} ({self.runs}) can run "
                f"{', '.join(self.recipes)}"
            )
        return recipe


TARGETS = {
    target.name: target
    for target in (
        Target(
            "litert",
            "LiteRT on a phone's or desktop's CPU, through XNNPACK",
            Form(channels_last=True),
            (
                "float32",
                "fp16",
                "int8",
                "int4",
                "int8-weights",
                "int4-weights",
                "int8-hadamard",
                "int4-hadamard",
                "w8a8-static",
                "w8a16-static",
            ),
            translates=True,
        ),
        Target(
            "litert-gpu",
            "LiteRT's GPU accelerator, also OpenCL on Mali",
            Form(channels_last=True, resize="matmul", norm_gain=HALF_PRECISION_GAIN),
            ("fp16", "float32"),
        ),
        Target(
            "litert-npu",
            "LiteRT with a vendor's NPU plugin",
            Form(channels_last=True),
            ("fp16", "float32", "w8a8-static", "w8a16-static"),
            graph_limit=2**31,
        ),
        Target(
            "executorch",
            "ExecuTorch on a phone's or desktop's CPU, through XNNPACK",
            Form(mean="matmul"),
            ("float32", "int8", "int4", "int8-static"),
            translates=True,
        ),
    )
}


def find_target(name: str) -> Target:
    """A target by its name.

    Raises:
        InputError: with the names there are.
    """
    if name not in TARGETS:
        raise InputError(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
    return TARGETS[name]
