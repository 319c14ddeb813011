"""The old place of ``vggt_edge.files``, until the command line imports from there."""

from ..files import check_writable, replacing

__all__ = ["check_writable", "replacing"]
