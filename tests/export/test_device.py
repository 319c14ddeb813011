"""The phone's side: an adb that records its calls and answers as the benchmark binaries do.

No phone was there. This proves what adb is told and what is made of the answers, not that a phone
gives them.
"""

from __future__ import annotations

import json
import sys

import bundles
import numpy as np
import pytest
from networks import seeded

from vggt_edge.errors import ExportError, InputError
from vggt_edge.export import device
from vggt_edge.export.tflite_names import Names

# As the binaries print (TensorFlow's benchmark_model, ExecuTorch's executor_runner).
LITERT_SAYS = """INFO: STARTING!
INFO: Loaded model tiny.tflite
VmHWM:\t   10240 kB
INFO: count=5 first=40110 curr=39000 min=38000 max=42000 avg=39500.5 std=120
INFO: Inference timings in us: Init: 5579, First inference: 41000, Warmup (avg): 4.1e+04, \
Inference (avg): 39500.5
VmHWM:\t   20480 kB
"""
EXECUTORCH_SAYS = """I 00:00:00.1 executorch:executor_runner.cpp:361] Model executed successfully \
5 time(s) in 1000.000000 ms.
VmHWM:\t   20480 kB
"""
FAKE = """#!{python}
import json, pathlib, shutil, sys
place = pathlib.Path({place!r})
arguments = sys.argv[1:]
with (place / "calls.jsonl").open("a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments[:1] == ["-s"]:
    if arguments[1] != "phone":
        sys.exit("adb: device 'other' not found")
    arguments = arguments[2:]
verb = arguments[0]
if (place / "fails").exists() and (place / "fails").read_text() == verb:
    sys.exit("adb: error: no space left on device")
phone = place / "phone"
if verb == "push":
    target = phone / arguments[2].lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(arguments[1], target)
elif verb == "pull":
    answers = sorted((place / "answers").glob(pathlib.Path(arguments[1]).name + ".*"))
    run = len(list((place / "runs").glob("*"))) - 1
    shutil.copyfile(answers[run], arguments[2])
elif arguments[:2] == ["shell", "getprop"]:
    print({{"ro.product.model": "Pixel 9", "ro.soc.model": "Tensor G4"}}.get(arguments[2], "15"))
elif "./benchmark" in arguments[-1]:
    (place / "runs" / str(len(list((place / "runs").glob("*"))))).touch()
    print((place / "says").read_text())
"""


@pytest.fixture(scope="module")
def network():
    return seeded()


def bundle_for(network, place, target, patch):
    return bundles.write(network, place / "raw", place / "b", patch, target=target)


@pytest.fixture
def phone(tmp_path):
    """A fake adb, its log and what it answers."""
    for name in ("runs", "answers"):
        (tmp_path / name).mkdir()
    program = tmp_path / "adb"
    program.write_text(FAKE.format(python=sys.executable, place=str(tmp_path)))
    program.chmod(0o755)
    (tmp_path / "benchmark_model").write_bytes(b"elf")
    return tmp_path


def calls(phone):
    return [json.loads(line) for line in (phone / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def litert(network, phone, monkeypatch):
    """A bundle of LiteRT, and a phone that answers as it should."""
    made = bundle_for(network, phone, "litert", monkeypatch)
    order = ("pose", "depth", "confidence")  # of the graph, not of the description
    names = Names(
        {"images": "serving_default_images:0"}, {n: f"StatefulPartitionedCall:{n}" for n in order}
    )
    monkeypatch.setattr(device, "tensor_names", lambda _: names)
    golden = made.golden()
    for index in range(len(golden)):
        parts = [golden.outputs[name][index].astype("<f4").tobytes() for name in order]
        (phone / "answers" / f"output.bin.{index}").write_bytes(b"".join(parts))
    (phone / "says").write_text(LITERT_SAYS)
    return made


def test_adb_is_told_to_run_litert_and_its_answers_come_back(litert, phone):
    adb = device.Adb(str(phone / "adb"), "phone")
    outputs, facts = device.run(litert, phone / "benchmark_model", adb, threads=3, runs=5)
    for name, value in litert.golden().outputs.items():
        np.testing.assert_array_equal(outputs[name], value)
    assert (
        facts["device"] == "Pixel 9" and facts["chip"] == "Tensor G4" and facts["android"] == "15"
    )
    assert facts["mean_milliseconds"] == pytest.approx(39.5005)
    assert facts["peak_megabytes"] == 20 and facts["stages"]["model"]["first_milliseconds"] == 41
    told = calls(phone)
    assert all(one[:2] == ["-s", "phone"] for one in told)
    verbs = [one[2:] for one in told]
    place = f"{device.REMOTE}/{litert.identity[:16]}"
    assert ["shell", f"chmod 755 {place}/benchmark"] in verbs
    scripts = [one[-1] for one in verbs if "./benchmark" in one[-1]]
    assert len(scripts) == len(litert.golden())
    for word in ("--graph=tiny-2x28x42-float32.tflite", "--num_threads=3", "--num_runs=5",
                 "--input_layer=serving_default_images:0", "--input_layer_shape=2,28,42,3",
                 "--input_layer_value_files=serving_default_images::0:images.bin",
                 "--output_filepath=output.bin", "--use_gpu=false"):  # fmt: skip
        assert word in scripts[0].replace("'", ""), word
    assert "--num_runs=1" in scripts[1]
    assert verbs[-1] == ["shell", f"rm -rf {place}"]
    # What was pushed last is the input of the last set, as the file takes it.
    given = np.fromfile(phone / "phone" / f"{place}/images.bin".lstrip("/"), np.float32)
    np.testing.assert_array_equal(given, litert.golden().given("VHWC")[-1].ravel())


def test_adb_is_told_to_run_executorch(network, phone, monkeypatch):
    made = bundle_for(network, phone, "executorch", monkeypatch)
    golden = made.golden()
    for index in range(len(golden)):
        for number, name in enumerate(made.outputs):
            content = golden.outputs[name][index].astype("<f4").tobytes()
            (phone / "answers" / f"output-{number}.bin.{index}").write_bytes(content)
    (phone / "says").write_text(EXECUTORCH_SAYS)
    outputs, facts = device.run(
        made, phone / "benchmark_model", device.Adb(str(phone / "adb")), runs=5
    )
    np.testing.assert_array_equal(outputs["pose"], golden.outputs["pose"])
    assert facts["mean_milliseconds"] == 200
    script = next(one[-1] for one in calls(phone) if "./benchmark" in one[-1])
    for word in ("--model_path=tiny-2x28x42-float32.tflite", "--inputs=images.bin",
                 "--output_file=output", "--num_executions=5", "--cpu_threads=4"):  # fmt: skip
        assert word in script
    with pytest.raises(InputError, match="gpu for bundles of LiteRT"):
        device.run(made, phone / "benchmark_model", device.Adb("adb"), accelerator="gpu")
    (stage,) = made.manifest["stages"]
    made.manifest["stages"] = [{**stage, "method": name} for name in ("encoder", "trunk")]
    with pytest.raises(InputError, match=r"\(encoder, trunk\).*export without --split"):
        device.run(made, phone / "benchmark_model", device.Adb("adb"))


def test_the_phone_is_cleaned_up_after_a_failure(litert, phone):
    (phone / "fails").write_text("pull")
    with pytest.raises(ExportError, match="adb pull failed: adb: error: no space left on device"):
        device.run(litert, phone / "benchmark_model", device.Adb(str(phone / "adb")))
    assert calls(phone)[-1][-1].startswith("rm -rf")


def test_what_is_missing_is_said(litert, phone):
    benchmark = phone / "benchmark_model"
    with pytest.raises(InputError, match="no-adb: not found; install Android's platform tools"):
        device.run(litert, benchmark, device.Adb("no-adb"))
    with pytest.raises(InputError, match="adb finds no device.*allow debugging"):
        device.run(litert, benchmark, device.Adb(str(phone / "adb"), "other"))
    with pytest.raises(InputError, match="give the benchmark binary"):
        device.run(litert, phone / "none", device.Adb(str(phone / "adb")))
    with pytest.raises(InputError, match="cpu, or gpu"):
        device.run(litert, benchmark, device.Adb("adb"), accelerator="npu")


def test_half_an_answer_is_refused(litert, phone):
    path = phone / "answers" / "output.bin.0"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ExportError, match=r"brought back \d+ bytes, not"):
        device.run(litert, phone / "benchmark_model", device.Adb(str(phone / "adb")))


def test_times_are_read_as_the_binaries_print_them():
    assert device.read_times(LITERT_SAYS, "litert")["milliseconds"] == pytest.approx(39.5005)
    large = LITERT_SAYS.replace("39500.5", "2.95034e+06")
    assert device.read_times(large, "litert")["milliseconds"] == pytest.approx(2950.34)
    unsaid = device.read_times("Inference (avg): 1000", "litert")
    assert unsaid == {"peak_megabytes": None, "milliseconds": 1, "first_milliseconds": None}
    with pytest.raises(ExportError, match="told no time; its last line: Aborted"):
        device.read_times("VmHWM: 1 kB\nAborted\n", "litert")
    with pytest.raises(ExportError, match="its last line: none"):
        device.read_times("", "executorch")


def test_the_command_writes_the_same_report(litert, phone, monkeypatch, capsys):
    from vggt_edge import cli

    arguments = ["device", litert.folder, "--benchmark", phone / "benchmark_model",
                 "--adb", phone / "adb", "-o", phone / "out"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["vggt-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    out = capsys.readouterr().out
    assert "passed" in out and "Pixel 9" in out
    (told,) = json.loads((phone / "out" / "check.json").read_text())["gates"]
    assert told["gate"] == "device" and told["facts"]["peak_megabytes"] == 20
    assert "Tensor G4" in (phone / "out" / "check.html").read_text()
