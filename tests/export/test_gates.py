"""Gates: wrong answers fail and say where, what cannot run is skipped and says what it needs."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import bundles
import numpy as np
import pytest
from networks import seeded

from vggt_edge import cli
from vggt_edge.errors import ExportError, InputError
from vggt_edge.export.gates import environments, gate, measure, proofs, report
from vggt_edge.weights import save


@pytest.fixture(scope="module")
def network():
    return seeded()


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    place = tmp_path_factory.mktemp("gates")
    with pytest.MonkeyPatch.context() as patch:
        return bundles.write(network, place / "raw", place / "b", patch)


@pytest.fixture
def context(made, network, tmp_path):
    return gate.Context(made, made.golden(), tmp_path / "none", network)


def judged(context, outputs, **options):
    proof = gate.Gate("mine", "", lambda _: gate.Outcome(outputs, **options))
    return gate.run(proof, context)


def test_the_same_answers_pass(context):
    result = judged(context, dict(context.golden.outputs), repeats=True)
    assert result.status == "passed" and not result.reasons
    assert len(result.measured.images) == 2 * len(context.golden)
    assert result.measured.worst.abs_rel < 1e-4 and result.measured.worst.delta1 == 1
    assert {"abs_rel", "delta1", "auc30"} == result.measured.truth.keys()
    for before, after in result.measured.truth.values():
        assert before == pytest.approx(after, abs=1e-3)


@pytest.mark.parametrize("index, view", [(0, 1), (2, 0)])
def test_a_golden_that_differs_fails_and_says_where(context, index, view):
    outputs = {name: value.copy() for name, value in context.golden.outputs.items()}
    outputs["depth"][index, view, 7, 11, 0] *= 50
    result = judged(context, outputs, repeats=True)
    assert result.status == "failed"
    name = context.golden.names[index]
    assert any(
        f"golden depth differs at {name}, view {view}, row 7, column 11" in reason
        for reason in result.reasons
    )
    assert result.measured.worst.set == name and result.measured.worst.view == view


def test_one_bad_image_among_good_ones_fails(context):
    """A mean or a correlation over all images would hide it."""
    outputs = {name: value.copy() for name, value in context.golden.reference.items()}
    outputs["depth"][1, 0] *= 1.2
    result = judged(context, outputs)
    assert result.status == "failed"
    assert any("abs_rel 0.2 above" in r and "view 0" in r for r in result.reasons)


def test_a_wrong_camera_fails(context):
    outputs = {name: value.copy() for name, value in context.golden.reference.items()}
    outputs["pose"][2, 1, 3:7] = np.roll(outputs["pose"][2, 1, 3:7], 1)
    result = judged(context, outputs)
    assert any(r.startswith("rotation") and "world" in r for r in result.reasons)
    outputs["pose"] = context.golden.reference["pose"].copy()
    outputs["pose"][0, 1, :3] += 100
    assert any(r.startswith("translation") for r in judged(context, outputs).reasons)


def test_quaternions_of_another_length_and_sign_are_the_same_camera(context):
    outputs = {name: value.copy() for name, value in context.golden.reference.items()}
    outputs["pose"][..., 3:7] *= -3
    assert judged(context, outputs).status == "passed"


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda o: o.pop("pose"), r"pose has shape None, not \(\d, 2, 9\)"),
        (lambda o: o.update(depth=o["depth"][:, :1]), r"depth has shape \(\d, 1"),
        (lambda o: o["depth"].__setitem__((1, 0, 3, 2, 0), np.inf), r"first at \(1, 0, 3, 2, 0\)"),
    ],
)
def test_answers_of_another_form_fail(context, change, reason):
    outputs = {name: value.copy() for name, value in context.golden.reference.items()}
    change(outputs)
    result = judged(context, outputs)
    assert result.status == "failed" and result.measured is None
    assert re.search(reason, result.reasons[0])


def test_a_loss_against_the_truth_fails(context):
    reference = context.golden.reference["depth"]
    measured = measure.Measured(
        (measure.ImageScore("world 0", 0, 0.0, 1.0, None, None),),
        {"abs_rel": (0.10, 0.13), "delta1": (0.9, 0.9)},
    )
    (reason,) = measured.broken(measure.LIMITS["int8"])
    assert "abs_rel against the truth 0.1000 -> 0.1300" in reason
    assert measured.broken(measure.LIMITS["int4"]) and reference.size


@pytest.mark.parametrize("before, broken", [(0.9, True), (0.05, False)])
def test_cameras_lose_against_the_truth_only_where_the_network_knows_them(before, broken):
    image = measure.ImageScore("world 0", 0, None, None, 0.0, 0.0)
    measured = measure.Measured((image,), {"auc30": (before, before - 0.04)})
    assert bool(measured.broken(measure.LIMITS["int8"])) == broken


def test_precisions_have_limits():
    wanted = {
        "float32": "float32", "float": "float32", "fp16": "fp16", "int8": "int8", "int4": "int4",
        "int8-hadamard": "int8", "int4-weights": "int4", "w8a8-static": "int8", "w4a8-g32": "int4",
        "*=w8a8,depth_head=float": "int8", "8da4w": "int4",
    }  # fmt: skip
    for recipe, limits in wanted.items():
        assert measure.precision(recipe) == limits, recipe
    bounds = [measure.LIMITS[name] for name in ("float32", "fp16", "int8", "int4")]
    for tight, wide in zip(bounds, bounds[1:], strict=False):
        assert tight.abs_rel < wide.abs_rel and tight.delta1 > wide.delta1


def test_the_network_itself_passes_and_another_one_fails(context):
    passed = gate.run(proofs.GATES["torch"], context)
    assert passed.status == "passed" and passed.measured.worst.abs_rel < 1e-4
    other = dataclasses.replace(context, model=seeded(seed=1))
    (reason,) = gate.run(proofs.GATES["torch"], other).reasons
    assert "another network" in reason


@pytest.mark.parametrize("name", [n for n in proofs.GATES if n != "torch"])
def test_what_cannot_run_is_skipped_with_the_way_out(context, name, monkeypatch):
    monkeypatch.setattr(environments, "python_with", lambda *_: None)
    result = gate.run(proofs.GATES[name], context)
    assert result.status == "skipped" and result.measured is None
    assert any(word in result.reasons[0] for word in ("make ", "--target", "export with"))


def test_every_gate_can_be_skipped_for_its_own_environment(made, network, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "python_with", lambda *_: None)
    needs = {
        "litert-gpu": "litert-gpu", "npu-partitions": "litert-npu", "npu-numerics": "litert-npu",
        "executorch-xnnpack": "executorch",
    }  # fmt: skip
    for name, target in needs.items():
        told = {"target": target, "runtime": target.partition("-")[0], "recipe": "fp16"}
        other = dataclasses.replace(made, manifest={**made.manifest, **told})
        context = gate.Context(other, other.golden(), tmp_path, network)
        (reason,) = gate.run(proofs.GATES[name], context).reasons
        assert "needs" in reason, name


def test_the_npus_numbers_are_of_fp16_and_of_this_network(made, network, tmp_path):
    proof = proofs.GATES["npu-numerics"]
    for told in (
        {"recipe": "w8a8-static"},
        {"recipe": "float32"},
        {"recipe": "fp16", "exceptions": {"depth_head": "float32"}},
    ):
        manifest = {**made.manifest, "target": "litert-npu", **told}
        other = dataclasses.replace(made, manifest=manifest)
        result = gate.run(proof, gate.Context(other, other.golden(), tmp_path, network))
        assert result.status == "skipped"
        assert f"the bundle is {', '.join(other.recipes)}; export with" in result.reasons[0]
    manifest = {**made.manifest, "target": "litert-npu", "recipe": "fp16"}
    other = dataclasses.replace(made, manifest=manifest)
    result = gate.run(proof, gate.Context(other, other.golden(), tmp_path, seeded(seed=1)))
    assert result.status == "failed" and "another network" in result.reasons[0]


def test_a_worker_that_dies_fails_its_gate_alone(context, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "WORKERS", tmp_path)
    (tmp_path / "crash.py").write_text("import os; os.kill(os.getpid(), 11)")
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    (tmp_path / "raises.py").write_text("raise ValueError('no kernel\\nfor this')")
    for worker, reason in (
        ("crash.py", "signal 11"),
        ("raises.py", "exit 1.*ValueError: no kernel"),
        ("slow.py", "not done after 1 s.*--timeout"),
    ):
        quick = dataclasses.replace(context, timeout=1.0 if worker == "slow.py" else 60.0)
        with pytest.raises(ExportError, match=reason):
            gate.call(quick, worker, [sys.executable])
    proof = gate.Gate("mine", "", lambda c: gate.call(c, "crash.py", [sys.executable]))
    assert gate.run(proof, context).status == "failed"


@pytest.mark.parametrize(
    "error", [InputError("no such input"), PermissionError(13, "Permission denied", "python")]
)
def test_what_goes_wrong_in_a_gate_fails_it_alone(context, error):
    def prove(_):
        raise error

    result = gate.run(gate.Gate("mine", "", prove), context)
    assert result.status == "failed" and result.reasons == (str(error),)


def test_gates_are_found_by_name():
    assert [one.name for one in proofs.find_gates("all")] == list(proofs.GATES)
    assert [one.name for one in proofs.find_gates("litert-cpu, torch")] == ["torch", "litert-cpu"]
    for names in ("gpu", "", "all,torch"):
        with pytest.raises(InputError):
            proofs.find_gates(names)


def test_the_report_is_whole(context, tmp_path):
    outputs = {name: value.copy() for name, value in context.golden.reference.items()}
    outputs["depth"][0, 0] *= 1.3
    results = [
        judged(context, dict(context.golden.outputs), facts={"runtime": "<b>x</b>"}),
        judged(context, outputs),
        gate.run(proofs.GATES["litert-gpu"], context),
    ]
    written = report.write(tmp_path / "out", results, context.bundle, context.golden)
    data = json.loads(written["json"].read_text())
    assert (data["passed"], data["failed"], data["skipped"]) == (1, 1, 1)
    assert data["gates"][1]["measured"]["worst"]["set"] == context.golden.names[0]
    assert data["identity"] == context.bundle.identity
    page = written["page"].read_text()
    assert "<b>x</b>" not in page and "&lt;b&gt;x" in page
    # Per image: picture and reference, and two for every gate that ran.
    assert page.count("<img ") == 2 * len(context.golden) * (2 + 2 * 2)
    lines = report.table(results)
    assert "passed" in lines[1] and any("--target litert-gpu" in line for line in lines)


def run_cli(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["vggt-edge", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as exit_:
        code = exit_.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_proves_and_exits_as_it_found(made, network, tmp_path, monkeypatch, capsys):
    save(network, tmp_path / "tiny.safetensors")
    base = ("check", made.folder, "--environments", tmp_path / "none", "-o", tmp_path / "out")
    code, out, _ = run_cli(
        monkeypatch, capsys, *base, "--gates", "torch,litert-gpu", "--json",
        "--model", tmp_path / "tiny.safetensors",
    )  # fmt: skip
    told = json.loads(out.splitlines()[-1])
    assert code == 0 and told["passed"] == 1 and told["skipped"] == 1
    code, out, _ = run_cli(monkeypatch, capsys, *base, "--gates", "litert-gpu")
    assert code == 1 and "skipped" in out  # nothing was proven
    code, _, err = run_cli(monkeypatch, capsys, *base, "--gates", "phone")
    assert code == 2 and err.startswith("error: unknown gate phone; known: all, torch")
    (tmp_path / "text").write_text("x")
    code, _, err = run_cli(monkeypatch, capsys, "check", tmp_path / "text")
    assert code == 1 and err.count("\n") == 1 and "neither a folder nor a zip" in err
