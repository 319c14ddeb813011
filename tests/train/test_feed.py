from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FED = """
import time
import torch
from vggt_edge.train.curriculum import Stage, draw
from vggt_edge.train.feed import Feed

STAGES = (Stage(10**9, (2,), (42**2,), 4 * 42**2, (0.8, 1.0), 0.5),)

def plan(step):
    return draw(step, 14, 0, 1.0, STAGES)

if __name__ == "__main__":
    try:
        with Feed(plan, torch.device("cpu"), workers=1) as feed:
            feed.get(0)
            for ahead in feed.ahead.values():
                ahead.result()
            time.sleep(0.2)  # now the worker waits for work
            print(*feed.pool._processes, flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        print("stopped")
"""


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent_and_say_nothing(tmp_path, number):
    script = tmp_path / "fed.py"
    script.write_text(FED)
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        worker = int(running.stdout.readline())
        if number == signal.SIGINT:
            os.killpg(running.pid, number)  # as a terminal does
        else:
            running.send_signal(number)
        printed, said = running.communicate(timeout=30)
    if number == signal.SIGINT:
        assert (printed, said) == ("stopped\n", "")
    else:  # Python's resource tracker may have a word
        assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
