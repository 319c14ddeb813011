"""Networks for phones: rewritten, checked for what a target cannot run, converted, quantized."""

from .exported import Exported, ExportedFile
from .run import export

__all__ = ["Exported", "ExportedFile", "export"]
