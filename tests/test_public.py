from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import vggt_edge as ve


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names_are_sorted_and_are_the_lazy_ones():
    assert ve.__all__ == sorted(ve._HOMES)
    assert len(set(ve.__all__)) == len(ve.__all__)


@pytest.mark.parametrize("name", ve.__all__)
def test_every_name_is_what_it_says_and_documented(name):
    value = getattr(ve, name)
    assert callable(value) and value.__name__ == name
    assert value.__module__ == "vggt_edge." + ve._HOMES[name]
    assert inspect.getdoc(value)


def test_dir_lists_all_names_and_the_version():
    assert set(ve.__all__) <= set(dir(ve))
    assert "__version__" in dir(ve) and dir(ve) == sorted(set(dir(ve)))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'vggt_edge' has no attribute 'recontsruct'"):
        ve.recontsruct  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    heavy = "{'torch', 'numpy', 'PIL', 'typer', 'tqdm', 'av'}"
    assert run(f"import vggt_edge, sys; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize(
    "before",
    ["ve.reconstruct", "import vggt_edge.predict", "from vggt_edge.predict import to_tensor"],
)
def test_predict_is_the_function_whatever_was_imported_before(before):
    code = f"import vggt_edge as ve\n{before}\nprint(type(ve.predict).__name__)"
    assert run(code) == "function"


def test_the_designs_examples_run(tiny_model, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        pixels = rng.integers(0, 255, (56, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    weights = ve.save(tiny_model, tmp_path / "tiny.safetensors")

    model = ve.load(weights, dtype="float32")
    views = ve.read_views([tmp_path / "photos/"], size=70)
    prediction = ve.predict(model, views, heads=("camera", "depth"))
    scene = ve.reconstruct(model, views)
    written = ve.write(scene, tmp_path / "out", formats=("glb", "ply", "colmap"))

    assert isinstance(views, ve.Views) and len(views) == 2
    assert isinstance(prediction, ve.Prediction) and isinstance(prediction.cameras, ve.Cameras)
    assert isinstance(scene, ve.Scene) and len(scene.points) > 0
    assert list(written) == ["glb", "ply", "colmap"]
    assert all(path.exists() for path in written.values())
    assert ve.load_source(views.sources[0]).shape == (56, 70, 3)
    assert ve.full_resolution(scene.prediction, 0)[0].shape == (56, 70)
    with pytest.raises(ve.VGGTEdgeError):
        ve.load(tmp_path / "none.safetensors")


def test_the_nouns_are_frozen():
    for noun in (ve.Cameras, ve.Prediction, ve.Scene, ve.Views):
        assert dataclasses.is_dataclass(noun)
        assert noun.__dataclass_params__.frozen
