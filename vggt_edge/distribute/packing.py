"""Objects that hold tensors as one pickle and many flat arrays, which processes can share.

Ray copies what lies inside a pickle into every process, but maps numpy arrays read-only from the
memory that all processes of a machine share. So the bytes of a tensor travel as an array: a network
is on each machine once, however many of its workers run it.
"""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import numpy as np
import torch

Packed = tuple[bytes, list[np.ndarray]]


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """(bytes,) uint8; the tensor's own memory where it is on the CPU and in one piece."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: np.ndarray = flat.view(torch.uint8).numpy()
    return array


def _tensor_from(
    data: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...], device: str, parameter: bool
) -> torch.Tensor:
    """A tensor over the array's memory, which nobody may write to."""
    if not data.size:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            tensor = torch.from_numpy(data).view(dtype).view(shape)
    tensor = tensor.to(device)
    return torch.nn.Parameter(tensor, requires_grad=False) if parameter else tensor


def pack(value: Any) -> Packed:
    """A pickle, by ray's cloudpickle, and the bytes of tensors and arrays that belong in it.

    Gradients are not kept: parameters come back frozen.
    """
    from ray.cloudpickle import CloudPickler

    class Pickler(CloudPickler):
        def reducer_override(self, obj: Any) -> Any:
            if type(obj) in (torch.Tensor, torch.nn.Parameter):
                # The machine that unpacks has devices of its own: "cuda" is the one it was given.
                where = (obj.dtype, tuple(obj.shape), obj.device.type)
                return _tensor_from, (_bytes_of(obj), *where, type(obj) is torch.nn.Parameter)
            return super().reducer_override(obj)

    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as file:
        Pickler(file, protocol=5, buffer_callback=buffers.append).dump(value)
        data = file.getvalue()
    return data, [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]


def unpack(packed: Packed) -> Any:
    """Inverse of ``pack``; tensors and arrays lie in the given memory and must not be changed."""
    data, buffers = packed
    return pickle.loads(data, buffers=buffers)
