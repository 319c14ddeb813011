"""The protocols by name: the project's own, and those of the papers its numbers stand beside.

Sources: the scripts of wlfeng0509/QuantVGGT (run_co3d.py, run_7andN.py), the evaluation of
yyfz/Pi3, the evaluation branch of facebookresearch/vggt, FastVGGT's eval_utils.py, VGGT-Long's
README; docs/ACCURACY.md says what is known to differ. Every paper's own baseline differs from the
others', so run the float model under the same protocol and read the difference.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError
from .protocol import CloudRule, DepthRule, Protocol, Sampling

DEFAULT = "vggt-edge"

_OWN = Protocol(
    name=DEFAULT,
    beside="no paper's table: compare models, each scored by this protocol",
    sampling=Sampling("uniform", count=8),
    poses=("usual", "strict"),
    trajectories=("sim3",),
    depth=DepthRule(("median", "scale_shift"), "truth"),
    cloud=CloudRule(("umeyama",), limit=50_000, thresholds=(0.05, 0.1)),
)

_RANDOM_TEN = Sampling("random", count=10)
_CO3D = replace(_RANDOM_TEN, least=50)
# Metres, as all of these datasets are read; published as 100 for DTU in millimetres.
_ICP = 0.1

_QUANTVGGT_CLOUD = CloudRule(
    ("scale_shift", "umeyama"), "points", crop=224, icp=_ICP, limit=999_999, farthest=10.0
)
_PI3_CLOUD = CloudRule(("umeyama",), "depth", icp=_ICP, limit=None)

_PUBLISHED: dict[str, dict[str, Protocol]] = {
    "quantvggt": {
        "co3d": Protocol(
            name="quantvggt",
            beside="QuantVGGT, Co3Dv2 pose: legacy_auc30, 15, 5 and 3. Its own sampling differs by "
            "0.2 to 1 point from draw to draw; the plain auc30 belongs beside other papers",
            sampling=_CO3D,
            poses=("legacy", "usual"),
            average="groups",
            mode="crop",
        ),
        "7scenes": Protocol(
            name="quantvggt",
            beside="QuantVGGT, 7-Scenes point maps (kf 100): scale_shift_*, or the plain names for "
            "its --use_proj. The published script scores the float model in every row",
            sampling=Sampling("stride", stride=100),
            cloud=_QUANTVGGT_CLOUD,
        ),
        "nrgbd": Protocol(
            name="quantvggt",
            beside="QuantVGGT, NRGBD point maps (kf 100): scale_shift_*, or the plain names for "
            "its --use_proj. The published script scores the float model in every row",
            sampling=Sampling("stride", stride=100),
            cloud=_QUANTVGGT_CLOUD,
        ),
    },
    "pi3": {
        "co3d": Protocol(
            name="pi3",
            beside="pi3, Co3Dv2 angular pose: RRA@30, RTA@30, AUC@30. Not beside QuantVGGT or VGGT",
            sampling=replace(_RANDOM_TEN, seed=42),
            poses=("usual",),
        ),
        "re10k": Protocol(
            name="pi3",
            beside="pi3, RealEstate10K angular pose: RRA@30, RTA@30, AUC@30",
            sampling=replace(_RANDOM_TEN, seed=42),
            poses=("usual",),
        ),
        "scannet": Protocol(
            name="pi3",
            beside="pi3, CUT3R and MonST3R, ScanNet poses: ATE, RPE of the first 90 frames, every "
            "third; split as in their list",
            sampling=Sampling("stride", count=90, stride=3),
            trajectories=("sim3",),
        ),
        "tum": Protocol(
            name="pi3",
            beside="pi3, CUT3R and MonST3R, TUM-dynamics poses: ATE, RPE of the first 90 frames, "
            "every third",
            sampling=Sampling("stride", count=90, stride=3),
            trajectories=("sim3",),
        ),
        "7scenes": Protocol(
            name="pi3",
            beside="pi3, 7-Scenes point maps, sparse (kf 200); also FGQ. --stride 40 for the dense "
            "view, beside pi3 and TAPTQ",
            sampling=Sampling("stride", stride=200),
            cloud=replace(_PI3_CLOUD, farthest=10.0),
        ),
        "nrgbd": Protocol(
            name="pi3",
            beside="pi3, NRGBD point maps, sparse (kf 500); also FGQ. --stride 100 for the dense",
            sampling=Sampling("stride", stride=500),
            cloud=replace(_PI3_CLOUD, farthest=10.0),
        ),
        "dtu": Protocol(
            name="pi3",
            beside="pi3, DTU point maps (kf 5; millimetres there), against depth maps, not scans",
            sampling=Sampling("stride", stride=5),
            cloud=_PI3_CLOUD,
        ),
        "eth3d": Protocol(
            name="pi3",
            beside="pi3, ETH3D point maps (kf 5)",
            sampling=Sampling("stride", stride=5),
            cloud=_PI3_CLOUD,
        ),
    },
    "vggt": {
        "co3d": Protocol(
            name="vggt",
            beside="the evaluation branch of VGGT, Co3Dv2: legacy_auc30 (0.895 with --fast_eval), "
            "15, 5 and 3; the paper prints 0.882",
            sampling=_CO3D,
            poses=("legacy", "usual"),
            average="groups",
            mode="crop",
        ),
        "re10k": Protocol(
            name="vggt",
            beside="VGGT, RealEstate10K AUC@30 (0.853), ten random frames a clip",
            sampling=_RANDOM_TEN,
            poses=("legacy", "usual"),
        ),
        "eth3d": Protocol(
            name="vggt",
            beside="VGGT, ETH3D point maps: acc_mean, comp_mean, overall of depth and camera; "
            "which ten frames the paper drew was not published",
            sampling=_RANDOM_TEN,
            cloud=CloudRule(("umeyama",), "depth", limit=None),
        ),
        "dtu": Protocol(
            name="vggt",
            beside="VGGT, DTU: acc_mean, comp_mean, overall (millimetres there); its frames and "
            "masks were not published, so only roughly",
            sampling=Sampling("all"),
            cloud=CloudRule(("umeyama",), "depth", limit=999_999),
        ),
    },
    "fastvggt": {
        "scannet": Protocol(
            name="fastvggt",
            beside="FastVGGT, LiteVGGT, S-VGGT, ScanNet-50: legacy_ate and bounds_chamfer, "
            "1000 frames (--views 100, 300, 500). The plain ATE is of camera centres",
            sampling=Sampling("fastvggt", count=1000),
            trajectories=("legacy", "sim3"),
            cloud=CloudRule(("bounds",), "depth", limit=100_000, voxel=0.05, clip=0.5),
        ),
    },
    "gotohunt": {
        "7scenes": Protocol(
            name="gotohunt",
            beside="GoToHunt, 7-Scenes: ATE of 500 frames, every second",
            sampling=Sampling("stride", count=500, stride=2),
            trajectories=("sim3",),
        ),
    },
    "vggt-long": {
        "kitti": Protocol(
            name="vggt-long",
            beside="VGGT-Long, Pi-Long, DA3-Streaming, KITTI odometry: ATE of whole sequences",
            sampling=Sampling("all"),
            trajectories=("sim3",),
        ),
    },
}

NAMES = (DEFAULT, *_PUBLISHED)


def protocol(
    name: str = DEFAULT,
    dataset: str | None = None,
    *,
    frames: int | None = None,
    stride: int | None = None,
    draws: str = "sequence",
) -> Protocol:
    """The protocol called ``name`` for a dataset.

    Args:
        name: one of ``NAMES``.
        dataset: of ``datasets.MODULES``; ``DEFAULT`` takes any and needs none.
        frames: another number of frames a recording; ``beside`` then says so.
        stride: every so many-th frame instead of the protocol's choice; ``beside`` then says so.
        draws: "sequence", or "published" for the papers' own chain of random draws (``Sampling``).

    Raises:
        InputError: no protocol of that name, or it says nothing about the dataset.
    """
    if name not in NAMES:
        raise InputError(f"no protocol is called {name}; there are {', '.join(NAMES)}")
    if draws not in ("sequence", "published"):
        raise InputError(f"no draws are called {draws}; choose sequence or published")
    found = _OWN
    if name != DEFAULT:
        tables = _PUBLISHED[name]
        if dataset not in tables:
            raise InputError(
                f"the protocol {name} says nothing about {dataset}, only about "
                f"{', '.join(tables)}; --protocol {DEFAULT} takes any dataset"
            )
        found = tables[dataset]
    sampling = replace(found.sampling, draws=draws)
    if stride is not None:
        sampling = replace(sampling, kind="stride", stride=stride)
    if frames is not None:
        sampling = replace(sampling, count=frames)
    beside = found.beside
    if name != DEFAULT and (frames is not None or stride is not None):
        chosen = [f"{n} {word}" for n, word in ((frames, "frames"), (stride, "stride")) if n]
        beside = f"{beside} [changed here: {', '.join(chosen)}]"
    return replace(found, sampling=sampling, beside=beside)
