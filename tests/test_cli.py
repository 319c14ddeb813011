from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import vggt_edge
from vggt_edge.checkpoint import expected_shapes
from vggt_edge.cli import main
from vggt_edge.model.config import PRESETS, VGGTConfig
from vggt_edge.model.vggt import VGGT
from vggt_edge.train.initialize import initialize
from vggt_edge.weights import save

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PROGRAM = (sys.executable, "-m", "vggt_edge")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def process(*arguments: object, program: tuple[str, ...] = PROGRAM, **options: Any) -> Result:
    command = [*program, *map(str, arguments)]
    environment = ENVIRONMENT | options.pop("env", {})
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, **options
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs main() in this process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["vggt-edge", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Result(caught.value.code or 0, *capsys.readouterr())

    return call


def failed(result: Result, *fragments: str, code: int = 1) -> None:
    """One clear line and the right exit code, nothing else."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert result.err.endswith("\n") and result.err.strip().isprintable()
    for fragment in fragments:
        assert fragment in result.err, (fragment, result.err)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    model = initialize(VGGT(dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))), seed=1)
    return save(model, tmp_path_factory.mktemp("weights") / "tiny.safetensors", "Apache-2.0")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Four pictures of three sizes and both orientations."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, size in enumerate([(56, 70), (70, 56), (56, 70), (112, 91)]):
        noise(*size, seed=i).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def reconstruct(cli, pictures, weights, tmp_path):
    """Runs ``reconstruct`` into tmp_path/out with the tiny network, on the pictures by default."""

    def call(*arguments: object, inputs: object = pictures) -> Result:
        out = tmp_path / "out"
        return cli(
            "reconstruct", inputs, "-m", weights, "-o", out, "--size", 70, "-f", "ply", *arguments
        )

    return call


# What works


@pytest.fixture(scope="module")
def finished(pictures, weights, tmp_path_factory) -> tuple[Result, Path]:
    """One run as a real process, with the defaults."""
    out = tmp_path_factory.mktemp("runs") / "out"
    return process("reconstruct", pictures, "-m", weights, "-o", out, "--json"), out


def test_a_run_writes_what_it_says(finished):
    result, out = finished
    assert result.code == 0, result.err
    *lines, last = result.out.splitlines()
    data = json.loads(last)
    assert data["views"] == 4 and data["points"] > 0 and data["device"] == "cpu"
    assert data["outputs"] == {
        "glb": str(out / "scene.glb"),
        "html": str(out / "scene.html"),
        "colmap": str(out / "sparse/0"),
    }
    assert lines[0].startswith(f"4 views of {data['width']}x{data['height']}, {data['points']:,} ")
    for line, path in zip(lines[1:], data["outputs"].values(), strict=True):
        assert line.startswith(f"  {path}  ") and Path(path).exists()
    assert {"scene.glb", "scene.html", "images/0.png", "sparse/0/cameras.bin"} <= files(out)
    assert not [name for name in files(out) if "partial" in name]


def test_a_run_away_from_a_terminal_shows_no_bar_and_warns_in_lines(finished):
    result, _ = finished
    for line in result.err.splitlines():
        assert line.startswith("warning: "), result.err


def test_one_picture_works(reconstruct, pictures, tmp_path):
    result = reconstruct(inputs=pictures / "0.png")
    assert result.code == 0 and result.out.startswith("1 view of 70x56, ")
    assert files(tmp_path / "out") == {"scene.ply"}


def test_options_reach_the_work(reconstruct, pictures):
    result = reconstruct("--limit", 2, "--max-points", 50, "--mode", "pad", "--json")
    data = json.loads(result.out.splitlines()[-1])
    assert (data["views"], data["points"], data["width"], data["height"]) == (2, 50, 70, 70)
    result = reconstruct("--dtype", "float32", "--json")
    assert json.loads(result.out.splitlines()[-1])["dtype"] == "float32"


def test_full_resolution_depth(reconstruct, tmp_path):
    result = reconstruct("-f", "depth", "--full-resolution")
    assert result.code == 0, result.err
    with Image.open(tmp_path / "out" / "depth" / "3.png") as depth:
        assert depth.size == (91, 112)


def test_damaged_video_frames_are_one_line_of_warning(weights, tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 10, options={"g": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(18):
            frame = av.VideoFrame.from_ndarray(np.asarray(noise(48, 64, i)), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, length in packets[6:12]:
        data[position : position + length] = b"\xff" * length
    path.write_bytes(data)
    result = process(
        *("reconstruct", path, "--every", 1, "-m", weights, "--size", 70, "-f", "ply"),
        *("-o", tmp_path / "out"),
    )
    assert result.code == 0, result.err
    assert result.err.startswith(f"warning: {path}: ") and result.err.count("\n") == 1
    assert "of 18 frames are damaged and were left out" in result.err


def test_warnings_of_all_kinds_are_lines(cli, monkeypatch):
    def complain(source: object) -> None:
        warnings.warn("one\nthing", UserWarning, stacklevel=1)
        logging.getLogger("vggt_edge.scene").warning("another %s", "thing")
        raise vggt_edge.VGGTEdgeError("the end")

    monkeypatch.setattr("vggt_edge.weights.locate", complain)
    handlers, show = list(logging.getLogger().handlers), warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = cli("fetch", "x/y")
    assert result.err == "warning: one thing\nwarning: another thing\nerror: the end\n"
    assert logging.getLogger().handlers == handlers and warnings.showwarning is show


# Help and usage


def test_help_is_quick_and_loads_no_library():
    code = "import sys, vggt_edge.cli; print({'torch', 'numpy', 'PIL', 'av'} & set(sys.modules))"
    assert process("-c", code, program=(sys.executable,)).out == "set()\n"
    begin = time.perf_counter()
    result = process("--help")
    assert time.perf_counter() - begin < 2  # 0.1 s on an idle core
    assert result.code == 0 and result.err == ""
    for verb in ("reconstruct", "info", "fetch", "train"):
        assert f"\n  {verb} " in result.out


@pytest.mark.parametrize("verb", ["reconstruct", "info", "fetch", "train"])
def test_every_verb_explains_itself(cli, verb):
    for flag in ("-h", "--help"):
        result = cli(verb, flag)
        assert result.code == 0 and "--json" in result.out


def test_help_names_what_there_is(cli):
    from vggt_edge.hardware import DTYPES
    from vggt_edge.outputs import FORMATS
    from vggt_edge.preprocess import MODES

    shown = cli("reconstruct", "--help").out
    for name in (*FORMATS, *MODES, *DTYPES, "auto", "cpu", "cuda", "mps"):
        assert name in shown, name
    for name in PRESETS:
        assert name in cli("train", "--help").out


def test_version(cli):
    assert cli("--version") == (0, f"vggt-edge {vggt_edge.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ((), "Usage: vggt-edge"),
        (("reconstruct",), "Missing argument"),
        (("recontsruct", "x"), "No such command 'recontsruct'"),
        (("reconstruct", "x", "--siz", "70"), "No such option: --siz"),
        (("reconstruct", "x", "--limit", "0"), "--limit"),
        (("reconstruct", "x", "--every", "none"), "--every"),
        (("reconstruct", "x", "--confidence-percentile", "120"), "--confidence-percentile"),
        (("info",), "Missing argument"),
        (("info", "pocket", "--views", "0"), "--views"),
        (("fetch",), "Missing argument"),
        (("train", "x", "--steps", "0"), "--steps"),
    ],
)
def test_bad_usage_is_2(cli, arguments, fragment):
    result = cli(*arguments)
    assert result.code == 2
    assert fragment in result.out + result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--size", "71"), ("71 is not a multiple of the patch size 14: try 70 or 84",)),
        (("--mode", "stretch"), ("unknown mode 'stretch'", "keep, crop, pad")),
        (("--device", "tpu"), ("unknown device 'tpu'", "auto, cpu, cuda or mps")),
        (("--dtype", "int3"), ("unknown dtype 'int3'", "bf16")),
        (("-f", "ply,obj"), ("unknown format obj", "known are glb")),
        (("-f", ","), ("no format asked for", "known are glb")),
        (("--full-resolution",), ("depth or exr",)),
        (("--confidence-percentile", "100"), ("percentile", "below 100")),
    ],
)
def test_options_that_make_no_sense_are_2_and_write_nothing(
    reconstruct, tmp_path, arguments, fragments
):
    failed(reconstruct(*arguments), *fragments, code=2)
    assert not (tmp_path / "out").exists()


# Bad input


def make_bad_picture(kind: str, path: Path) -> None:
    if kind == "truncated":
        noise(90, 90).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("Dear diary, today I took no photographs.\n")
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(500))
    elif kind == "huge":
        Image.new("1", (10001, 10001)).save(path, "PNG")
    elif kind == "video":
        path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(16))


@pytest.mark.parametrize(
    ("kind", "name", "fragments"),
    [
        ("truncated", "a.jpg", ("truncated or damaged", "leave it out")),
        ("empty", "a.jpg", ("is empty (0 bytes)", "leave it out")),
        ("text", "a.jpg", ("not an image (it is text)", "leave it out")),
        ("noise", "a.png", ("not an image", "leave it out")),
        ("huge", "a.png", ("10001x10001 pixels", "100 megapixels", "make it smaller")),
        ("video", "a.mp4", ("cannot be read as a video", "re-encode")),
    ],
)
def test_bad_pictures(reconstruct, tmp_path, kind, name, fragments):
    bad = tmp_path / name
    make_bad_picture(kind, bad)
    failed(reconstruct(bad), str(bad), *fragments)  # after the good ones
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_not_there(reconstruct, tmp_path):
    (tmp_path / "empty").mkdir()
    failed(reconstruct(inputs=tmp_path / "empty"), "empty: holds no images", "give a folder")
    failed(reconstruct(inputs=tmp_path / "none.jpg"), "none.jpg: does not exist", "check the path")
    failed(reconstruct(inputs=tmp_path / "*.jpg"), "*.jpg: matches no image", "check the pattern")
    url = "http://127.0.0.1:9/a.jpg"
    failed(reconstruct(inputs=url), f"{url}: cannot be fetched", "check the address")
    assert not (tmp_path / "out").exists()


def test_a_video_without_frames(reconstruct, tmp_path):
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    failed(reconstruct(inputs=path), "none.mkv", "without frames", "re-encode")


def test_an_unwritable_output_is_refused_before_the_work(reconstruct, monkeypatch, tmp_path):
    monkeypatch.setattr("vggt_edge.weights.describe", lambda _: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("mine")
    failed(reconstruct("-o", tmp_path / "file" / "out"), "file is no folder", "choose another")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk(pictures, weights, tmp_path):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    out = tmp_path / "out"
    result = process(
        *("reconstruct", pictures, "-m", weights, "-o", out, "--size", 70, "-f", "depth,npz"),
        preexec_fn=small_files,
    )
    failed(result, f"cannot write {out / 'scene.npz'}", "free some space")
    assert "depth/depth.json" in files(out)  # what was complete stays
    assert all(name.startswith("depth/") for name in files(out))


def test_a_full_disk_behind_standard_output():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=1)
    failed(Result(done.returncode, "", done.stderr), "No space left on device")


def test_a_reader_that_has_gone_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PROGRAM, "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""


class Evil:
    def __init__(self, canary: Path):
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return open, (self.canary, "w")


def test_a_checkpoint_that_would_run_code(reconstruct, cli, tmp_path):
    path, canary = tmp_path / "evil.pt", tmp_path / "canary"
    torch.save({"aggregator.camera_token": Evil(canary)}, path)
    for result in (reconstruct("-m", path), cli("info", path)):
        failed(result, "evil.pt", "could run code", "safetensors")
    path.write_bytes(pickle.dumps(Evil(canary)))
    failed(reconstruct("-m", path), "evil.pt")
    assert not canary.exists() and not (tmp_path / "out").exists()


def test_corrupt_checkpoints_name_what_is_wrong(reconstruct, cli, weights, tmp_path):
    path = tmp_path / "bad.safetensors"
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    good = load_file(weights)
    some = "camera_head.pose_branch.fc2.bias"

    def refused(tensors: dict[str, torch.Tensor], *fragments: str) -> None:
        save_file(tensors, path, metadata=metadata)
        for result in (reconstruct("-m", path), cli("info", path)):
            failed(result, "bad.safetensors", *fragments)

    refused({k: v for k, v in good.items() if k != some}, f"missing {some}")
    refused(good | {"extra.weight": torch.zeros(1)}, "unknown extra.weight")
    refused(good | {some: torch.zeros(7)}, f"wrong shape {some} (is 7, should be 9)")
    for content in (b"", b"\xff" * 64, weights.read_bytes()[:-100]):
        path.write_bytes(content)
        failed(reconstruct("-m", path), "bad.safetensors", "not a readable safetensors file")
    failed(reconstruct("-m", tmp_path / "none.pt"), "none.pt: no such weight file", "'pocket'")
    failed(reconstruct("--point-head"), "tiny.safetensors: has no point head")
    assert not (tmp_path / "out").exists()


def test_a_run_that_would_not_fit_is_refused_before_the_weights_are_loaded(
    reconstruct, monkeypatch, tmp_path
):
    monkeypatch.setattr("vggt_edge.memory.available_memory", lambda _: 480_000_000)
    monkeypatch.setattr("vggt_edge.weights.load", lambda *_, **__: pytest.fail("was loaded"))
    result = reconstruct("--size", 1120, "--dtype", "float32")
    failed(result, "4 views of ", "need about ", "0.5 GB are free", "--size", "--dtype bf16")
    assert not (tmp_path / "out").exists()


INTERRUPTED = """
import signal, sys, time
import vggt_edge.predict
from vggt_edge.outputs import npz
from vggt_edge.files import replacing

def write(scene, path):
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        print("now", flush=True)
        time.sleep(60)

def predict(images, model):
    print("now", flush=True)
    return to_tensor(images, model)

predict_module = sys.modules["vggt_edge.predict"]
to_tensor = predict_module.to_tensor
if sys.argv.pop(1) == "predict":
    predict_module.to_tensor = predict
npz.write = write
from vggt_edge.cli import main
main()
"""


@pytest.mark.parametrize(
    ("moment", "size", "complete", "number"),
    [
        ("predict", 1120, set(), signal.SIGINT),
        ("write", 70, {"scene.ply"}, signal.SIGINT),
        ("write", 70, {"scene.ply"}, signal.SIGTERM),
    ],
)
def test_ctrl_c_stops_at_once_and_leaves_what_is_complete(
    pictures, weights, tmp_path, moment, size, complete, number
):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    arguments = ["reconstruct", pictures, "-m", weights, "-o", out, "-f", "ply,npz"]
    arguments += ["--size", size, "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, moment, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"TMPDIR": str(temporary)},
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "now\n"
        time.sleep(0.1)
        begin = time.monotonic()
        running.send_signal(number)
        printed, said = running.communicate(timeout=30)
    assert time.monotonic() - begin < 5
    failed(Result(running.returncode, printed, said), "interrupted")
    assert files(out) == complete
    assert not list(temporary.iterdir())


# info, fetch, train


def test_info_of_vggt_1b_reads_no_tensor(cli, tmp_path):
    """A file of 5 GB that takes no space: the right header, and a hole."""
    entries, end = {}, 0
    for name, shape in expected_shapes(VGGTConfig()).items():
        begin, end = end, end + 4 * int(np.prod(shape))
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    path = tmp_path / "vggt.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    begin = time.monotonic()
    result = cli("info", path, "--views", 8, "--size", 518, "--dtype", "bf16", "--json")
    assert time.monotonic() - begin < 3
    *lines, last = result.out.splitlines()
    data = json.loads(last)
    millions = {name: round(count / 1e6, 1) for name, count in data["parts"].items()}
    assert millions == {
        "aggregator": 909.1,
        "camera_head": 216.2,
        "depth_head": 32.7,
        "point_head": 32.7,
        "track_head": 65.9,
    }
    assert data["parameters"] == sum(data["parts"].values()) == end // 4
    assert data["weights_bytes"] == end // 2
    assert (data["views"], data["width"], data["height"]) == (8, 518, 392)
    assert data["run_bytes"] > 8 * 16e6
    for part, count in millions.items():
        assert any(part in line and f"{count} M" in line for line in lines)
    assert lines[-1].startswith("  memory      bf16 on ") and "8 views of 518x392" in lines[-1]


def test_info_of_our_file(cli, weights):
    result = cli("info", weights, "--size", 112, "--json")
    data = json.loads(result.out.splitlines()[-1])
    assert data["license"] == "Apache-2.0" and data["recipe"] is None
    assert data["stored"] == {"F32": len(load_file(weights))}
    assert VGGTConfig.from_dict(data["config"]) == dataclasses.replace(
        TINY_CONFIG, heads=("camera", "depth")
    )
    assert (data["width"], data["height"]) == (112, 84)
    assert cli("info", weights).code == 0  # at the size that reconstruct takes
    failed(cli("info", "nothing"), "nothing: no such weight file")
    failed(cli("info", weights, "--size", 71), "try 70 or 84", code=2)


def test_fetch_gives_the_path(cli, weights):
    result = cli("fetch", weights, "--json")
    assert json.loads(result.out.splitlines()[-1])["file"] == str(weights)


def test_fetch_without_a_network(tmp_path):
    result = process(
        *("fetch", "facebook/VGGT-1B"), env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    )
    licence, error = result.err.splitlines()
    assert result.code == 1 and licence.startswith("facebook/VGGT-1B: CC BY-NC")
    assert error.startswith("error: facebook/VGGT-1B: cannot be fetched") and "pocket" in error


def test_train_refuses_early(cli, monkeypatch, tmp_path):
    tiny = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    monkeypatch.setitem(PRESETS, "pocket", tiny)
    failed(cli("train", tmp_path, "--preset", "giant"), "unknown preset 'giant'", code=2)
    failed(cli("train", tmp_path, "--batch", "-1"), "--batch", code=2)
    (tmp_path / "file").write_text("")
    failed(cli("train", tmp_path / "file" / "run"), "file is no folder")
    (tmp_path / "checkpoint.pt").write_bytes(b"half a checkp")
    failed(cli("train", tmp_path), "checkpoint.pt", "use another folder")
    torch.save({"model_config": VGGTConfig().to_dict()}, tmp_path / "checkpoint.pt")
    failed(cli("train", tmp_path), "checkpoint.pt", "another network")
    monkeypatch.setattr("vggt_edge.train.curves.find_spec", lambda _: None)
    failed(cli("train", tmp_path), "matplotlib", "pip install 'vggt-edge[train]'")
    assert files(tmp_path) == {"file", "checkpoint.pt"}
