"""What networks are exported for: the form each target takes, and the recipes it can run."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError, RecipeError
from ..recipe import Recipe
from .shape import Form

# What the runtimes' kernels run of the schemes of ``vggt_edge.recipe``.
LITERT_SCHEMES = (
    "w8a8, w8a16, w4a8-g32 (g64, g128), w4a16-g32, w8a8-hadamard, w4a8-hadamard and float"
)
EXECUTORCH_SCHEMES = "w8a8, w4a8-g32 (g64, g128) and float"

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
        schemes      those of ``vggt_edge.recipe`` it also takes, for people; "" for none.
        delegate     what takes the graph over inside an ExecuTorch program, by its id there.
        runs_here    whether a desktop runs its files; where not, they are lowered and not run.
    """

    name: str
    runs: str
    form: Form
    recipes: tuple[str, ...]
    graph_limit: int | None = None
    schemes: str = ""
    delegate: str | None = None
    runs_here: bool = True

    @property
    def runtime(self) -> str:
        """What loads its files: "litert" or "executorch"."""
        return self.name.partition("-")[0]

    def check_recipe(self, recipe: str) -> str:
        """The recipe, if it is one of this target's names or, where those are taken, of schemes.

        Raises:
            InputError: with those it can run.
        """
        if recipe in self.recipes:
            return recipe
        able = f"target {self.name} ({self.runs}) can run {', '.join(self.recipes)}"
        if not self.schemes:
            raise InputError(f"recipe {recipe!r}: {able}")
        try:
            Recipe(recipe)
        except RecipeError:
            raise RecipeError(f"recipe {recipe!r}: {able}; or of schemes {self.schemes}") from None
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
            schemes=LITERT_SCHEMES,
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
            Form(channels_last=True, norm_gain=HALF_PRECISION_GAIN),
            ("fp16", "float32", "w8a8-static", "w8a16-static"),
            graph_limit=2**31,
        ),
        Target(
            "executorch",
            "ExecuTorch on a phone's or desktop's CPU, through XNNPACK",
            Form(mean="matmul"),
            ("float32", "int8", "int4", "int8-static"),
            schemes=EXECUTORCH_SCHEMES,
            delegate="XnnpackBackend",
        ),
        Target(
            "executorch-coreml",
            "ExecuTorch with Core ML, on Apple's devices from iOS 16 and macOS 13",
            Form(norm_gain=HALF_PRECISION_GAIN),
            ("fp16", "float32"),
            delegate="CoreMLBackend",
            runs_here=False,
        ),
        Target(
            "executorch-vulkan",
            "ExecuTorch with Vulkan, on a phone's GPU",
            Form(norm_gain=HALF_PRECISION_GAIN),
            ("fp16", "float32"),
            delegate="VulkanBackend",
            runs_here=False,
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
