"""One function over many items, here or on other machines; knows nothing of networks.

executor.py  what an executor is.
local.py     this process.
ray.py       a Ray cluster, or a Ray of this machine's own.
drawn.py     items of a source that may be silent for long.
cluster.py   joining a Ray cluster, and how many workers its machines hold.
packing.py   functions that hold tensors, as bytes that processes of a machine share.
"""

from .executor import Executor
from .local import LocalExecutor
from .ray import RayExecutor

__all__ = ["Executor", "LocalExecutor", "RayExecutor"]
