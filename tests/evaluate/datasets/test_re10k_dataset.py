from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge.errors import InputError
from vggt_edge.evaluate.dataset_files import parsing
from vggt_edge.evaluate.datasets import dataset, re10k
from vggt_edge.recording import Recording

CLIP = "0c4c5d5f751aabf5"
STEP = 33367  # microseconds


@pytest.fixture(scope="module")
def world():
    return make_world(views=5)


def camera_text(world):
    lines = ["https://www.youtube.com/watch?v=SssA5CCuVRk"]
    for i, pose in enumerate(world.cameras.camera_from_world):
        height, width = world.cameras.sizes[i]
        k = world.cameras.intrinsics[i]
        shares = (
            k[0, 0] / width,
            k[1, 1] / height,
            (k[0, 2] + 0.5) / width,
            (k[1, 2] + 0.5) / height,
        )
        numbers = " ".join(f"{v:.9f}" for v in (*shares, 0, 0, *pose.ravel()))
        lines.append(f"{81_000_000 + STEP * i} {numbers}")
    return "\n".join(lines) + "\n"


def write(
    root, world, text="RealEstate10K/test", frames="frames/test/{}", clip=CLIP, suffix=".png"
):
    path = root / text / f"{clip}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(camera_text(world))
    for i, picture in enumerate(world.images):
        save(picture, root / frames.format(clip) / f"{81_000_000 + STEP * i}{suffix}")


@pytest.mark.parametrize(
    ("text", "frames", "suffix"),
    [
        ("RealEstate10K/test", "frames/test/{}", ".png"),
        ("test", "test/{}", ".jpg"),
        ("metadata/test", "{}", ".png"),
    ],
)
def test_layouts(tmp_path, world, text, frames, suffix):
    write(tmp_path, world, text, frames, suffix=suffix)
    (recording,) = re10k.read(tmp_path, "test")
    assert recording.name == CLIP and recording.units == "arbitrary"
    assert recording.depth is None and recording.points is None
    assert [int(path.stem) for path in recording.paths] == [81_000_000 + STEP * i for i in range(5)]
    assert_same_cameras(recording.cameras, world, tolerance=2e-8)
    # The dataset has no depth: lend it the world's to see that poses and intrinsics agree with it.
    lent = Recording("lent", recording.paths, recording.cameras, lambda i: world.depth[i])
    assert_consistent(lent)


def test_numbered_frames(tmp_path, world):
    write(tmp_path, world, "metadata/test", "unused/{}")
    for i, picture in enumerate(world.images):
        save(picture, tmp_path / CLIP / "images" / f"{i:04d}.png")
    (recording,) = re10k.read(tmp_path, "test")
    assert [path.name for path in recording.paths] == [f"{i:04d}.png" for i in range(5)]
    assert_same_cameras(recording.cameras, world, tolerance=2e-8)
    recording.paths[-1].unlink()
    with pytest.raises(InputError, match="holds 4 frames, but .* has 5"):
        re10k.read(tmp_path, "test")


def test_frames_that_were_not_extracted_are_left_out(tmp_path, world):
    write(tmp_path, world)
    (tmp_path / f"frames/test/{CLIP}/{81_000_000 + STEP * 2}.png").unlink()
    gone = tmp_path / "RealEstate10K/test/gone.txt"
    gone.write_text(camera_text(world))
    (recording,) = re10k.read(tmp_path, "test")
    assert len(recording) == 4
    np.testing.assert_allclose(
        recording.cameras.camera_from_world[2], world.cameras.camera_from_world[3], atol=1e-7
    )


def test_splits_and_the_list_of_clips(tmp_path, world):
    write(tmp_path, world)
    write(tmp_path, world, clip="0000000000000000")
    write(tmp_path, world, "RealEstate10K/train", "frames/train/{}", clip="ffffffffffffffff")
    names = [r.name for r in re10k.read(tmp_path, "test")]
    assert names == ["0000000000000000", CLIP]
    assert [r.name for r in re10k.read(tmp_path, "train")] == ["ffffffffffffffff"]
    (tmp_path / "re10k_test_1800.txt").write_text(f"{CLIP}\nnot_here\n")
    assert [r.name for r in re10k.read(tmp_path, "test")] == [CLIP]


def test_missing_roots(tmp_path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=r"google\.github\.io/realestate10k.*CC BY.*TIMESTAMP"):
            dataset("re10k").read(root, "test")


@given(st.text(st.sampled_from("0123456789.-+e \n") | st.characters(), max_size=80), st.data())
@example("", None)
@example("\n1 nan", None)
def test_odd_camera_files(text, data):
    whole = camera_text(make_world(views=2, height=2, width=2))
    at = 45 if data is None else data.draw(st.integers(0, len(whole)))
    try:
        with parsing(re10k.Path("clip.txt"), "a camera file"):
            times, shares, poses = re10k.parse(whole[:at] + text + whole[at:])
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(times) == len(shares) == len(poses) > 0
        assert np.isfinite(shares).all() and np.isfinite(poses).all()
