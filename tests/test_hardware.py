from __future__ import annotations

import psutil
import pytest
import torch

from vggt_edge import hardware
from vggt_edge.errors import InputError

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


def machine(monkeypatch, cuda=False, mps=False, bf16=False, bf16_gpu=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulation: bf16_gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: bf16)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, CUDA), (True, False, CUDA), (False, True, MPS), (False, False, CPU)],
)
def test_auto_prefers_the_fastest_device(monkeypatch, cuda, mps, expected):
    machine(monkeypatch, cuda, mps)
    assert hardware.pick_device() == expected
    assert hardware.pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "mps", "cuda:1", "gpu", "", "meta", "xpu", "cpu\nx"])
def test_devices_that_are_not_there(monkeypatch, name):
    machine(monkeypatch)
    with pytest.raises(InputError) as caught:
        hardware.pick_device(name)
    assert "cpu" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        (CPU, {"bf16": True}, torch.bfloat16),
        (CPU, {}, torch.float32),
        (CUDA, {"bf16_gpu": True}, torch.bfloat16),
        (CUDA, {}, torch.float16),
        (MPS, {"bf16": True}, torch.float32),
        (None, {}, torch.float32),
    ],
)
def test_auto_precision_is_what_the_hardware_multiplies(monkeypatch, device, options, expected):
    machine(monkeypatch, **options)
    assert hardware.pick_dtype("auto", device) == expected


def test_a_named_precision_is_taken_as_it_is(monkeypatch):
    machine(monkeypatch)
    for name, dtype in hardware.DTYPES.items():
        assert hardware.pick_dtype(name, CPU) == hardware.pick_dtype(dtype, CPU) == dtype


@pytest.mark.parametrize("name", ["int8", "float64", "", "bf16\n", torch.int8, torch.bool])
def test_unknown_precision(name):
    with pytest.raises(InputError, match="float32, bf16, fp16") as caught:
        hardware.pick_dtype(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu sse avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu sse avx512f avx_vnni", False),
        (None, False),
    ],
)
def test_bf16_is_read_from_the_processor_flags(monkeypatch, tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(hardware, "Path", lambda name: path if name == "/proc/cpuinfo" else name)
    assert hardware.cpu_has_bf16.__wrapped__() is expected


def container(folder, limit, used=3000, inactive=500):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 10\ninactive_file {inactive}\nactive_file 7\n")


def test_available_memory_is_the_hosts_without_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "CGROUP", tmp_path / "absent")
    free = psutil.virtual_memory().available
    assert hardware.available_memory(CPU) == pytest.approx(free, rel=0.2)


@pytest.mark.parametrize(("limit", "expected"), [("4000", 1500), ("max", 9000), (10**15, 9000)])
def test_available_memory_heeds_the_containers_limit(monkeypatch, tmp_path, limit, expected):
    """Cached files count as used in a container, but are given back on demand."""
    container(tmp_path, limit)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 9000}))
    assert hardware.available_memory(CPU) == expected


def test_available_memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert hardware.available_memory(CUDA) == 123
