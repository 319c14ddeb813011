from __future__ import annotations

import dataclasses
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
from conftest import TINY_CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from vggt_edge import checkpoint, weights
from vggt_edge.errors import CheckpointError, InputError, OutputError
from vggt_edge.model.config import PRESETS
from vggt_edge.model.vggt import VGGT, precise_parameters
from vggt_edge.train.initialize import initialize

# Small enough to write by the hundred: two heads, a few kilobytes.
MINI_CONFIG = dataclasses.replace(
    TINY_CONFIG,
    image_size=28,
    width=16,
    attention_heads=2,
    depth=4,
    camera_attention_heads=2,
    dense_features=4,
    dense_channels=(4, 4, 4, 4),
    heads=("camera", "depth"),
)


@pytest.fixture(scope="module")
def mini() -> VGGT:
    return initialize(VGGT(MINI_CONFIG), seed=5).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def mini_bytes(mini, tmp_path_factory) -> bytes:
    return weights.save(mini, tmp_path_factory.mktemp("mini") / "m.safetensors").read_bytes()


@pytest.fixture
def known_mini(monkeypatch):
    """The mini network as one this package recognises without a config."""
    monkeypatch.setitem(PRESETS, "mini", MINI_CONFIG)


def refused(source, *fragments: str, **options) -> str:
    """Load, and return the one-line message it is refused with."""
    with pytest.raises(CheckpointError) as caught:
        weights.load(source, device="cpu", **options)
    message = str(caught.value)
    assert message and message.isprintable()
    for fragment in fragments:
        assert fragment in message, message
    return message


def same(a: VGGT, b: VGGT) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        torch.equal(left[k], right[k]) and left[k].dtype == right[k].dtype for k in left
    )


def metadata(**changes) -> dict[str, str]:
    data = {"format": 1, "config": MINI_CONFIG.to_dict(), "recipe": None, "license": None}
    return {"vggt_edge": json.dumps(data | changes)}


# Round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip_is_exact(tiny_model, tmp_path, dtype):
    first = weights.save(tiny_model, tmp_path / "first.safetensors")
    model = weights.load(first, dtype=dtype, device="cpu")
    path = weights.save(model, tmp_path / "new" / "folder" / "m.safetensors", license="MIT")
    back = weights.load(path, dtype=dtype, device="cpu")
    assert same(model, back)
    assert back.config == model.config
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())
    assert checkpoint.read_header(path).license == "MIT"
    assert os.listdir(path.parent) == ["m.safetensors"]


def test_saved_file_has_the_mode_of_any_new_file(mini, tmp_path):
    path = weights.save(mini, tmp_path / "m.safetensors")
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_save_replaces_an_older_file(mini, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    weights.save(mini, path)
    assert same(mini, weights.load(path, dtype="float32", device="cpu"))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_dtype_conversion(mini, tmp_path, name, dtype):
    path = weights.save(mini, tmp_path / "m.safetensors")
    model = weights.load(path, dtype=name, device="cpu")
    precise = precise_parameters(model)
    assert any("norm1" in k for k in precise) and any("depth_head" in k for k in precise)
    for key, tensor in model.state_dict().items():
        wanted = torch.float32 if key in precise else dtype
        assert tensor.dtype == wanted, key
        assert torch.equal(tensor, mini.state_dict()[key].to(wanted)), key


def test_no_meta_tensor_survives(tiny_model, tmp_path):
    path = weights.save(tiny_model, tmp_path / "m.safetensors")
    model = weights.load(path, dtype="float32", device="cpu")
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))


def test_loaded_tensors_do_not_depend_on_the_file(mini, tmp_path):
    path = weights.save(mini, tmp_path / "m.safetensors")
    model = weights.load(path, dtype="float32", device="cpu")
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert same(mini, model)


def test_only_the_heads_asked_for_are_built_and_read(tiny_model, tmp_path, monkeypatch):
    path = weights.save(tiny_model, tmp_path / "m.safetensors")
    read = []

    def recording(path, names):
        for name, tensor in checkpoint.read_safetensors(path, names):
            read.append(name)
            yield name, tensor

    monkeypatch.setattr(weights, "read_safetensors", recording)
    model = weights.load(path, heads=("depth",), dtype="float32", device="cpu")
    assert model.config.heads == ("depth",)
    assert {name.split(".")[0] for name in read} == {"aggregator", "depth_head"}
    assert {name.split(".")[0] for name in model.state_dict()} == {"aggregator", "depth_head"}
    whole = tiny_model.state_dict()
    assert all(torch.equal(t, whole[k]) for k, t in model.state_dict().items())


def test_a_mapping_that_is_renewed_for_every_tensor_reads_the_same(mini, tmp_path, monkeypatch):
    path = weights.save(mini, tmp_path / "m.safetensors")
    monkeypatch.setattr(checkpoint, "REMAP_BYTES", 1)
    assert same(mini, weights.load(path, dtype="float32", device="cpu"))


def test_describe(mini, tmp_path, known_mini):
    header = weights.describe(weights.save(mini, tmp_path / "m.safetensors", license="a\nb\x1b[1m"))
    assert header.config == MINI_CONFIG
    assert header.shapes == checkpoint.expected_shapes(MINI_CONFIG)
    assert header.license == "a b [1m"
    torch.save(mini.state_dict(), tmp_path / "m.pt")
    pickled = weights.describe(tmp_path / "m.pt")
    assert (pickled.config, pickled.shapes, pickled.dtypes) == header_facts(header)


def header_facts(header):
    return header.config, header.shapes, header.dtypes


# Strictness


def test_missing_extra_and_wrong_tensors_are_named(mini, tmp_path):
    tensors = dict(mini.state_dict())
    del tensors["camera_head.token_norm.weight"]
    tensors["depth_head.wings"] = torch.zeros(1)
    tensors["aggregator.camera_token"] = torch.zeros(1, 2, 1, 8)
    path = tmp_path / "m.safetensors"
    save_file(tensors, path, metadata())
    refused(
        path,
        str(path),
        "missing camera_head.token_norm.weight",
        "unknown depth_head.wings",
        "wrong shape aggregator.camera_token (is 1x2x1x8, should be 1x2x1x16)",
    )


def test_long_lists_are_cut(mini, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"aggregator.camera_token": mini.aggregator.camera_token}, path, metadata())
    refused(path, "more blocks than it has tensors")
    with pytest.raises(CheckpointError, match="and 2 more"):
        checkpoint.check_shapes("x", {}, {f"t{i}": (1,) for i in range(6)})


def test_a_tensor_name_cannot_break_the_line(mini, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(dict(mini.state_dict()) | {"a\nb\x1b[31m": torch.zeros(1)}, path, metadata())
    refused(path, "unknown a b [31m")


def test_integer_tensors_are_refused(mini, tmp_path, known_mini):
    name = "aggregator.camera_token"
    tensors = {k: t.to(torch.int8) if k == name else t for k, t in mini.state_dict().items()}
    save_file(tensors, tmp_path / "m.safetensors", metadata())
    refused(tmp_path / "m.safetensors", name, "I8")
    torch.save(tensors, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", name, "int8")


def test_heads_that_are_not_there(mini, tmp_path):
    path = weights.save(mini, tmp_path / "m.safetensors")
    refused(path, "has no point head; it has camera, depth", heads=("camera", "point"))


def test_a_compressed_file_is_not_mistaken_for_a_float_one(mini, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(dict(mini.state_dict()), path, metadata(recipe={"w": "a\nb"}))
    refused(path, "recipe")


def test_a_file_without_config_is_recognised_by_its_shapes(mini, tmp_path, known_mini):
    path = tmp_path / "m.safetensors"
    save_file(dict(mini.state_dict()), path)
    assert weights.load(path, device="cpu").config == MINI_CONFIG


def test_a_width_nobody_knows_needs_a_config(mini, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(dict(mini.state_dict()), path)
    refused(path, "width 16 without a config", "vggt_edge.save")


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"aggregator.camera_token": torch.tensor(1.0), "x": torch.zeros(2)}, path)
    refused(path, "holds no VGGT")


# Damaged and hostile safetensors


def with_header(mini_bytes: bytes, change) -> bytes:
    """A file whose JSON header went through ``change``."""
    length = struct.unpack("<Q", mini_bytes[:8])[0]
    header = change(json.loads(mini_bytes[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + mini_bytes[8 + length :]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        bytes(range(256)) * 8,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 50_000_000) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 9) + b"not json!",
        struct.pack("<Q", 4) + b'"\xff"\n',
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
    ids=["empty", "byte", "noise", "huge", "long", "nothing", "text", "no utf-8", "nested"],
)
def test_files_that_are_no_safetensors(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    refused(path, str(path))


@pytest.mark.parametrize("keep", [4, 8, 100, -1])
def test_truncated_files(tmp_path, mini_bytes, keep):
    path = tmp_path / "m.safetensors"
    path.write_bytes(mini_bytes[:keep])
    refused(path, "not a readable safetensors file")


def test_overlapping_offsets(tmp_path, mini_bytes):
    def overlap(header):
        a, b = (header[f"camera_head.token_norm.{k}"] for k in ("weight", "bias"))
        a["data_offsets"] = b["data_offsets"]
        return header

    path = tmp_path / "m.safetensors"
    path.write_bytes(with_header(mini_bytes, overlap))
    refused(path, "not a readable safetensors file")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1]",
        "3",
        '{"format": 2}',
        '{"format": "1\\n2"}',
        '{"format": 1}',
        '{"format": 1, "config": 3}',
        '{"format": 1, "config": {"a\\nb": 1}}',
        "[" * 100_000,
        "1" * 10_000,
    ],
)
def test_metadata_that_cannot_be_read(mini, tmp_path, text):
    path = tmp_path / "m.safetensors"
    save_file(dict(mini.state_dict()), path, {"vggt_edge": text})
    refused(path, "metadata this version cannot read")


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 10**9, "taps": [0, 1, 2, 10**9 - 1]},
        {"encoder_depth": 10**9},
        {"camera_depth": 10**9},
        {"width": 2**62, "attention_heads": 2},
        {"width": 2**80},
        {"width": 16.0},
        {"width": "16"},
        {"width": None},
        {"width": -16},
        {"attention_heads": 0},
        {"patch_size": 0},
        {"patch_size": True},
        {"image_size": 14 * 10**9},
        {"registers": 10**30},
        {"dense_channels": [4, 4, 4, [4]]},
        {"dense_channels": {"a": 1}},
        {"dense_features": 10**12},
        {"taps": "0123"},
        {"taps": 4},
        {"heads": [["camera"]]},
        {"heads": "camera"},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_impossible_configs_are_refused_at_once(mini, tmp_path, change):
    path = tmp_path / "m.safetensors"
    save_file(dict(mini.state_dict()), path, metadata(config=MINI_CONFIG.to_dict() | change))
    refused(path, str(path))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_mutated_headers_load_or_are_refused(data, mini_bytes, tmp_path_factory):
    """Whatever byte is hit: a checkpoint error or a network, never another exception."""
    length = struct.unpack("<Q", mini_bytes[:8])[0]
    content = bytearray(mini_bytes)
    hits = st.tuples(st.integers(0, 7 + length), st.integers(0, 255))
    for place, value in data.draw(st.lists(hits, min_size=1, max_size=6)):
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(content)
    try:
        weights.load(path, device="cpu")
    except CheckpointError as error:
        assert str(error).isprintable()


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_mutated_metadata_loads_or_is_refused(data, mini, mini_bytes, tmp_path_factory):
    """Mutations the JSON parser of safetensors lets through, so that ours has to cope."""
    text = metadata()["vggt_edge"]
    place = data.draw(st.integers(0, len(text)))
    drop = data.draw(st.integers(0, 3))
    new = data.draw(st.text('0123456789-.,:[]{}"netruflas', max_size=4))
    changed = text[:place] + new + text[place + drop :]
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    header = {"__metadata__": {"vggt_edge": changed}}
    path.write_bytes(with_header(mini_bytes, lambda old: old | header))
    try:
        weights.load(path, device="cpu")
    except CheckpointError as error:
        assert str(error).isprintable()


# Torch files


class Evil:
    """Unpickled as code: creates the file it names."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_torch_files(mini, tmp_path, known_mini, wrap):
    content = dict(mini.state_dict())
    path = tmp_path / "m.pt"
    torch.save({wrap: content, "epoch": 3} if wrap else content, path)
    assert same(mini, weights.load(path, dtype="float32", device="cpu"))
    part = weights.load(path, heads=["camera"], dtype="bf16", device="cpu")
    assert part.config.heads == ("camera",)
    assert not any(name.startswith("depth") for name in part.state_dict())


def test_torch_files_of_before_1_6(mini, tmp_path, known_mini):
    path = tmp_path / "m.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what writing this format warns of is not our concern
        torch.save(dict(mini.state_dict()), path, _use_new_zipfile_serialization=False)
    assert same(mini, weights.load(path, dtype="float32", device="cpu"))


@pytest.mark.parametrize("format", ["zip", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, format):
    canary, path = tmp_path / "canary", tmp_path / "m.pt"
    content = {"model": Evil(canary)}
    if format == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format == "zip")
    refused(path, "could run code", "safetensors")
    assert not canary.exists()
    # The same file is no dud: read without care, it runs.
    if format == "zip":
        torch.load(path, weights_only=False)
        assert canary.exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, {}, torch.zeros(3), {"model": {"a": None}}]
)
def test_torch_files_of_something_else(tmp_path, content):
    path = tmp_path / "m.pt"
    torch.save(content, path)
    refused(path, "holds no")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, bytes(range(256)) * 8, b"PK\x03\x04junk"])
def test_torch_files_that_are_damaged(tmp_path, content):
    path = tmp_path / "m.pth"
    path.write_bytes(content)
    refused(path, str(path))


def test_a_truncated_torch_file(mini, tmp_path):
    path = tmp_path / "m.pt"
    torch.save(mini.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])
    refused(path, "not a readable torch file")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_mutated_pickles_are_refused(data, tmp_path_factory):
    content = bytearray(
        pickle.dumps({"a": [1.5, "text", (2, None)], "b": {"c": b"bytes"}}, protocol=2)
    )
    hits = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(hits, min_size=1, max_size=6)):
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    path.write_bytes(content)
    refused(path, str(path))


# Names, places


def test_places_that_are_no_weight_file(tmp_path):
    (tmp_path / "m.txt").write_text("weights")
    refused(tmp_path / "m.txt", "m.txt", ".safetensors")
    refused(tmp_path, "not a weight file")
    refused(tmp_path / "absent.safetensors", "no such weight file")
    refused("absent.pt", "no such weight file", "facebook/VGGT-1B")
    for name in ("packet", "", "a/b/c", "./a", "x" * 5000, "a\0b", "~nobody/x", "line\nbreak"):
        refused(name, "weight file", "pocket")
    (tmp_path / "d.safetensors").mkdir()
    refused(tmp_path / "d.safetensors", "not a weight file")


def test_unknown_dtype_and_device(tmp_path):
    for options in ({"dtype": "int8"}, {"dtype": torch.int8}, {"device": "meta"}):
        with pytest.raises(InputError) as caught:
            weights.load(tmp_path / "m.safetensors", **options)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["file/m.safetensors", "folder.safetensors", "m.pt"])
def test_output_that_cannot_be_written(mini, tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError) as caught:
        weights.save(mini, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert str(caught.value).isprintable()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.safetensors"]


def test_nothing_half_written_stays(mini, tmp_path, monkeypatch):
    def interrupted(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights.save(mini, tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


# Upstream modules


class Upstream(nn.Module):
    """Stands for upstream's ``VGGT``: the same names, no config."""

    def __init__(self, ours: VGGT):
        super().__init__()
        for name, child in ours.named_children():
            self.add_module(name, child)


def test_from_upstream(mini, known_mini):
    model = weights.from_upstream(Upstream(mini))
    assert model.config == MINI_CONFIG
    assert same(mini, model)
    assert model.aggregator.camera_token.data_ptr() != mini.aggregator.camera_token.data_ptr()
    assert weights.from_upstream(
        Upstream(mini), dtype="bf16"
    ).camera_head.embed_pose.weight.dtype == (torch.bfloat16)


def test_from_upstream_refuses_other_modules(mini):
    for module in (nn.Linear(2, 2), Upstream(mini)):
        with pytest.raises(CheckpointError, match=type(module).__name__) as caught:
            weights.from_upstream(module)
        assert str(caught.value).isprintable()


# Memory

PEAK = textwrap.dedent("""
    import sys, vggt_edge.weights as weights

    def status(key):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))

    small, large, *dtypes = sys.argv[1:]
    weights.load(small, device="cpu")  # whatever is imported on first use
    for dtype in dtypes:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # sets the peak back
        before = status("VmRSS:")
        model = weights.load(large, dtype=dtype, device="cpu")
        print(status("VmHWM:") - before, sum(t.nbytes for t in model.state_dict().values()))
        del model
""")


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_peak_memory_of_loading(mini, tmp_path):
    config = dataclasses.replace(
        MINI_CONFIG, width=768, attention_heads=12, encoder_depth=4, heads=("camera",)
    )
    model = checkpoint.skeleton(config).to_empty(device="cpu").requires_grad_(False)
    for tensor in model.state_dict().values():
        tensor.fill_(0.5)
    large = weights.save(model, tmp_path / "large.safetensors")
    del model
    small = weights.save(mini, tmp_path / "small.safetensors")
    assert large.stat().st_size > 380e6
    command = [sys.executable, "-c", PEAK, small, large, "bf16", "float32"]
    for line in subprocess.check_output(command, text=True).splitlines():
        peak, size = map(int, line.split())
        assert size > 0.4 * large.stat().st_size
        assert peak < 1.15 * size + (16 << 20), peak / size


def test_the_licence_travels_with_the_weights(tmp_path, tiny_model):
    first = weights.save(tiny_model, tmp_path / "a.safetensors", "Apache-2.0; mine")
    second = weights.save(weights.load(first, device="cpu"), tmp_path / "b.safetensors")
    assert weights.describe(second).license == "Apache-2.0; mine"
