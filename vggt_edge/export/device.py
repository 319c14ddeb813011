"""A bundle on a phone, over adb: push, run the runtime's own benchmark binary, bring back.

The binaries are the user's: LiteRT's ``benchmark_model`` or ExecuTorch's ``executor_runner``, built
for the phone. Nothing here has been run against a real phone yet: what adb is told, and what is
made of what the binaries print, is tested with an adb that records its calls.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError, InputError
from .bundle import Bundle
from .litert import Port
from .tflite_names import tensor_names

REMOTE = "/data/local/tmp/vggt-edge"


@dataclass(frozen=True)
class Adb:
    """One device behind an adb.

    Fields
        program  of adb.
        serial   of the device, None where only one is connected.
        timeout  seconds for one call.
    """

    program: str = "adb"
    serial: str | None = None
    timeout: float = 600.0

    def __call__(self, *arguments: str) -> str:
        """Call adb; what it printed.

        Raises:
            InputError: there is no adb, or no such device.
            ExportError: the call failed or took too long.
        """
        program = shutil.which(self.program)
        if program is None:
            raise InputError(
                f"{self.program}: not found; install Android's platform tools or give --adb"
            )
        serial = ["-s", self.serial] if self.serial else []
        try:
            done = subprocess.run(
                [program, *serial, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired:
            raise ExportError(f"adb {arguments[0]} took more than {self.timeout:.0f} s") from None
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else f"exit {done.returncode}"
            if "no devices" in reason or "not found" in reason and "device" in reason:
                raise InputError(f"adb finds no device ({reason}); connect one and allow debugging")
            raise ExportError(f"adb {arguments[0]} failed: {reason}")
        return done.stdout + done.stderr

    def property(self, name: str) -> str:
        """A system property of the device."""
        return self("shell", "getprop", name).strip()


def run(
    bundle: Bundle,
    benchmark: Path,
    adb: Adb,
    *,
    accelerator: str = "cpu",
    threads: int = 4,
    runs: int = 20,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Run every golden set on a device, and the first one often enough to time it.

    Args:
        bundle: what is run.
        benchmark: ``benchmark_model`` for a bundle of LiteRT, ``executor_runner`` for ExecuTorch,
            built for the device.
        adb: the device.
        accelerator: "cpu", or "gpu" for LiteRT.
        threads: on the CPU.
        runs: of the first set.

    Returns:
        Output to (N, ...) float32, and facts: the device, milliseconds and peak memory.

    Raises:
        InputError: no benchmark binary, no adb, no device, an accelerator that cannot be, or an
            ExecuTorch program of several methods.
        ExportError: the device fails, or brings back something else than it should.
    """
    runtime = bundle.manifest["runtime"]
    if accelerator not in ("cpu", "gpu") or (accelerator == "gpu" and runtime != "litert"):
        raise InputError(f"accelerator {accelerator!r}: cpu, or gpu for bundles of LiteRT")
    methods = [stage.get("method", "forward") for stage in bundle.manifest["stages"]]
    if len(methods) > 1 and runtime == "executorch":
        raise InputError(
            f"the bundle's program has several methods ({', '.join(methods)}), and executor_runner "
            "runs the first one alone: export without --split"
        )
    if not benchmark.is_file():
        raise InputError(f"{benchmark}: no such file; give the benchmark binary for the device")
    facts: dict[str, Any] = {
        "device": adb.property("ro.product.model"),
        "chip": adb.property("ro.soc.model"),
        "android": adb.property("ro.build.version.release"),
        "accelerator": accelerator,
        "threads": threads,
    }
    place = f"{REMOTE}/{bundle.identity[:16]}"
    adb("shell", f"mkdir -p {place}")
    try:
        adb("push", str(benchmark), f"{place}/benchmark")
        adb("shell", f"chmod 755 {place}/benchmark")
        names = {
            stage[k] for stage in bundle.manifest["stages"] for k in ("file", "data") if k in stage
        }
        for name in sorted(names):
            adb("push", str(bundle.path(name)), f"{place}/{Path(name).name}")
        results: dict[str, list[np.ndarray]] = {name: [] for name in bundle.outputs}
        for index, images in enumerate(bundle.golden().given(bundle.layout)):
            values = {"images": images}
            for stage in bundle.manifest["stages"]:
                one = _Run(bundle, stage, accelerator, threads, runs if index == 0 else 1)
                found, told = one.on(adb, place, values)
                values.update(found)
                if index == 0:
                    facts.setdefault("stages", {})[stage["name"]] = told
            for name in bundle.outputs:
                results[name].append(values[name])
    finally:
        adb("shell", f"rm -rf {place}")
    told = facts["stages"].values()
    facts["mean_milliseconds"] = sum(one["milliseconds"] for one in told)
    peaks = [one["peak_megabytes"] for one in told if one["peak_megabytes"] is not None]
    facts["peak_megabytes"] = max(peaks, default=None)
    return {name: np.stack(values) for name, values in results.items()}, facts


@dataclass(frozen=True)
class _Run:
    """One stage, run on one set."""

    bundle: Bundle
    stage: Mapping[str, Any]
    accelerator: str
    threads: int
    runs: int

    def on(
        self, adb: Adb, place: str, values: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Outputs and times."""
        with tempfile.TemporaryDirectory(prefix="vggt-edge-device-") as scratch:
            for name, port in self.stage["inputs"].items():
                stored = Port(**{**port, "shape": tuple(port["shape"])}).encode(values[name])
                np.ascontiguousarray(stored).tofile(Path(scratch) / f"{name}.bin")
                adb("push", str(Path(scratch) / f"{name}.bin"), f"{place}/{name}.bin")
            said = adb("shell", self._script(place))
            found = self._fetch(adb, place, Path(scratch))
        return found, read_times(said, self.bundle.manifest["runtime"])

    def _script(self, place: str) -> str:
        """Runs the binary and prints its largest resident memory, as the kernel counts it."""
        command = (
            self._litert() if self.bundle.manifest["runtime"] == "litert" else self._executorch()
        )
        words = " ".join(shlex.quote(word) for word in command)
        watch = "while kill -0 $p 2>/dev/null; do grep VmHWM /proc/$p/status; sleep 0.05; done"
        return f"cd {place} && {{ ./benchmark {words} 2>&1 & p=$!; {watch}; wait $p; }}"

    def _litert(self) -> list[str]:
        names = tensor_names(self.bundle.path(self.stage["file"]))
        ports = self.stage["inputs"]
        shapes = ":".join(",".join(map(str, port["shape"])) for port in ports.values())
        # A colon in a name is written twice.
        files = ",".join(f"{names.inputs[n].replace(':', '::')}:{n}.bin" for n in ports)
        return [
            f"--graph={Path(self.stage['file']).name}",
            f"--num_threads={self.threads}",
            f"--num_runs={self.runs}",
            f"--warmup_runs={2 if self.runs > 1 else 0}",
            "--min_secs=0",
            f"--use_gpu={'true' if self.accelerator == 'gpu' else 'false'}",
            "--use_xnnpack=true",
            f"--input_layer={','.join(names.inputs[n] for n in ports)}",
            f"--input_layer_shape={shapes}",
            f"--input_layer_value_files={files}",
            "--output_filepath=output.bin",
        ]

    def _executorch(self) -> list[str]:
        data = [f"--data_path={Path(self.stage['data']).name}"] if "data" in self.stage else []
        return [
            f"--model_path={Path(self.stage['file']).name}",
            *data,
            f"--inputs={','.join(f'{name}.bin' for name in self.stage['inputs'])}",
            "--output_file=output",
            f"--num_executions={self.runs}",
            f"--cpu_threads={self.threads}",
        ]

    def _fetch(self, adb: Adb, place: str, folder: Path) -> dict[str, np.ndarray]:
        ports = {
            name: Port(**{**port, "shape": tuple(port["shape"])})
            for name, port in self.stage["outputs"].items()
        }
        if self.bundle.manifest["runtime"] == "litert":
            # One file, outputs one after the other in the order of the graph.
            adb("pull", f"{place}/output.bin", str(folder / "output.bin"))
            content = (folder / "output.bin").read_bytes()
            order = list(tensor_names(self.bundle.path(self.stage["file"])).outputs)
        else:
            content, order = b"", list(ports)
            for index in range(len(order)):
                adb("pull", f"{place}/output-{index}.bin", str(folder / f"{index}.bin"))
                content += (folder / f"{index}.bin").read_bytes()
        sizes = {n: int(np.prod(p.shape)) * np.dtype(p.dtype).itemsize for n, p in ports.items()}
        if len(content) != sum(sizes.values()):
            raise ExportError(
                f"stage {self.stage['name']}: the device brought back {len(content)} bytes, not "
                f"{sum(sizes.values())}"
            )
        found, start = {}, 0
        for name in order:
            stored = np.frombuffer(
                content, ports[name].dtype, offset=start, count=int(np.prod(ports[name].shape))
            )
            found[name] = ports[name].decode(stored.reshape(ports[name].shape)).astype(np.float32)
            start += sizes[name]
        return found


def read_times(said: str, runtime: str) -> dict[str, Any]:
    """Mean milliseconds of a run and peak megabytes, of what a benchmark binary printed.

    None for the first run's time and for memory where it did not say.

    Raises:
        ExportError: it printed no time.
    """
    number = r"([\d.]+(?:e[+-]?\d+)?)"
    memory = [int(kilobytes) for kilobytes in re.findall(r"VmHWM:\s*(\d+) kB", said)]
    told = {"peak_megabytes": max(memory) / 1024 if memory else None}
    if runtime == "litert":
        found = re.search(rf"Inference \(avg\): {number}", said)
        if found:
            first = re.search(rf"First inference: {number}", said)
            return {
                **told,
                "milliseconds": float(found[1]) / 1000,
                "first_milliseconds": float(first[1]) / 1000 if first else None,
            }
    else:
        found = re.search(rf"executed successfully (\d+) time\(s\) in {number} ms", said)
        if found:
            return {**told, "milliseconds": float(found[2]) / int(found[1])}
    lines = [line for line in said.splitlines() if line.strip() and "VmHWM" not in line]
    raise ExportError(
        f"the benchmark told no time; its last line: {lines[-1] if lines else 'none'}"
    )
