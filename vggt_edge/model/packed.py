"""What all layers of packed integers share: codes that turn into panels and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from ..hardware import release_heap
from ..kernels import integers

RELEASE_BYTES = 32 << 20  # of weights packed before freed memory is handed back


class PackedLayer(nn.Module):
    """A layer whose weights are integers, held once: as stored, or as the kernels want them.

    Heirs say how ``codes`` (and ``multiplier``) become panels; saving, loading and moving see the
    stored form.
    """

    codes: Tensor
    scale: Tensor
    multiplier: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("multiplier", None)
        self._panels: integers.Panels | None = None

    @property
    def backend(self) -> str:
        """What runs the product on this machine; see ``backends``."""
        raise NotImplementedError

    def make_panels(self) -> integers.Panels:
        """The stored weights in panels."""
        raise NotImplementedError

    def restore(self, codes: Tensor, multiplier: Tensor | None) -> None:
        """Take unpacked codes back into the stored form."""
        self.codes, self.multiplier = codes, multiplier

    def panels(self) -> integers.Panels:
        """The weights as the kernels want them, in place of the stored ones, not beside them."""
        if self._panels is None:
            self._panels = self.make_panels()
            self.codes = self.codes.new_empty(0)
            if self.multiplier is not None:
                self.multiplier = self.multiplier.new_empty(0)
        return self._panels

    def drop_panels(self) -> None:
        """Back to the stored form."""
        if self._panels is not None:
            panels, self._panels = self._panels, None
            self.restore(*integers.unpack(panels, len(self.scale)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLayer:
        # Moved, but never cast: the codes' scales stay float32 whatever the network becomes.
        self.drop_panels()
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(fn(buffer).device)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.drop_panels()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._panels = None
        super()._load_from_state_dict(*args, **kwargs)


def packed_dtypes(module: nn.Module) -> dict[str, Any]:
    """Names and types of the state of all packed layers, which no cast may touch."""
    return {
        f"{path}.{name}": tensor.dtype
        for path, layer in module.named_modules()
        if isinstance(layer, PackedLayer)
        for name, tensor in layer.named_buffers()
    }


def prepare(modules: Iterable[nn.Module]) -> None:
    """Bring packed layers, as they come, into the form their backend runs, one by one."""
    packed = 0
    for layer in modules:
        if isinstance(layer, PackedLayer) and layer.backend == "avx512-vnni":
            packed += layer.panels().weights.nbytes
            if packed >= RELEASE_BYTES:
                # What was freed lies between the panels; left there it is a second copy.
                release_heap()
                packed = 0
    release_heap()
