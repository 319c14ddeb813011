"""Networks for phones: rewritten, checked for what a target cannot run, converted, quantized."""

from .run import Exported, ExportedFile, export

__all__ = ["Exported", "ExportedFile", "export"]
