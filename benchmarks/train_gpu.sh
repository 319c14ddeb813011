#!/usr/bin/env bash
# The whole training of a pocket network on one data-centre GPU within 25 minutes.
#
# NOT YET RUN ON A GPU: none was lent when this was written. Run on a CPU with a network of 32
# channels and a budget of 0.9 minutes in two calls: both stretches, going on, the decay and the
# copies to OUT. With pocket itself: its snapshots (4 files). What only a GPU can show is its speed:
# look at views/s in the log and, in nvidia-smi, whether the GPU waits; then raise WORKERS or BATCH.
# On a CPU, for the path alone:
#   PYTHON=.venv/bin/python DEVICE=cpu TOTAL=4 BATCH=0.04 SNAPSHOT=1 RUN=runs/tiny benchmarks/train_gpu.sh
#
# Worlds are built by processes on the CPU, photographed on the GPU one batch ahead, and learned
# there. A stretch at the constant rate is followed by one in which the rate decays; how many steps
# the decay has is set when it begins, from the speed so far, so that the run ends in time.
#
# Where a command may not last that long, call it again with MINUTES: each call goes on where the
# last one stopped, and the minutes of all are counted in RUN/minutes.
#   RUN      folder of the run; the same folder is gone on from           (runs/gpu)
#   TOTAL    minutes of the whole run                                     (25)
#   MINUTES  of this call at most                                         (TOTAL)
#   DECAY    share of TOTAL in which the rate decays                      (0.25)
#   BATCH    factor on the curriculum's pixels a step                     (6)
#   EVERY    steps between validations                                    (500)
#   SNAPSHOT minutes between snapshots                                    (3)
#   OUT      folder that snapshot, log and curves are copied to at the end (none)
#   DEVICE, WORKERS, PYTHON, and further options of `vggt-edge train` as arguments
#
# Files. RUN/checkpoint.pt is all there is (weights, running mean, both moments of AdamW: 16 bytes a
# parameter, 240 MB for pocket), and going on from it is exact. RUN/snapshot holds weights and their
# running mean in float16, in files of at most 16 MB (4 for pocket). Where only these survive, put
# them into an empty RUN/snapshot: the run goes on from them with the moments of AdamW at zero and
# 300 steps of warming up; it draws what it would have drawn. The moments are left out because they
# would double what has to travel.
set -euo pipefail
export PYTHONUNBUFFERED=1
cd "$(dirname "$0")/.."

RUN=${RUN:-runs/gpu} TOTAL=${TOTAL:-25} DECAY=${DECAY:-0.25} BATCH=${BATCH:-6}
EVERY=${EVERY:-500} SNAPSHOT=${SNAPSHOT:-3} DEVICE=${DEVICE:-cuda} PYTHON=${PYTHON:-python3}
MINUTES=${MINUTES:-$TOTAL}
MANY=1000000 # steps, as long as the end is not known

calc() { "$PYTHON" -c "print($1)"; }
is() { [ "$(calc "int($1)")" = 1 ]; }
called=$(date +%s.%N)
mkdir -p "$RUN"
[ -f "$RUN/minutes" ] || echo 0 >"$RUN/minutes"

# stretch STEPS DECAY MINUTES [options]: goes on with the run, and adds up the minutes.
stretch() {
    local steps=$1 decay=$2 minutes=$3 began
    shift 3
    began=$(date +%s.%N)
    "$PYTHON" -m vggt_edge train "$RUN" --device "$DEVICE" --batch "$BATCH" --every "$EVERY" \
        --snapshots "$SNAPSHOT" --steps "$steps" --decay "$decay" --minutes "$minutes" \
        ${WORKERS:+--workers "$WORKERS"} --json "$@" | tee "$RUN/last.out"
    calc "$(cat "$RUN/minutes") + ($(date +%s.%N) - $began) / 60" >"$RUN/minutes.new"
    mv "$RUN/minutes.new" "$RUN/minutes"
    "$PYTHON" -c 'import json, sys; print(json.loads(open(sys.argv[1]).readlines()[-1])["step"])' \
        "$RUN/last.out" >"$RUN/step.new"
    mv "$RUN/step.new" "$RUN/step"
}

left_of_call() { calc "$MINUTES - ($(date +%s.%N) - $called) / 60"; }

stable=$(calc "$TOTAL * (1 - $DECAY)")
if [ ! -f "$RUN/end" ]; then
    due=$(calc "min($stable - $(cat "$RUN/minutes"), $(left_of_call))")
    is "$due > 0" && stretch "$MANY" 1 "$due" "$@"
    if is "$(cat "$RUN/minutes") >= $stable - 0.05"; then
        step=$(cat "$RUN/step")
        # A tenth less than the speed so far would give: the end must not be cut off.
        decay=$(calc "max(1, int(0.9 * $step / $(cat "$RUN/minutes") * ($TOTAL - $(cat "$RUN/minutes"))))")
        echo "$((step + decay)) $decay" >"$RUN/end"
    fi
fi
if [ -f "$RUN/end" ]; then
    read -r steps decay <"$RUN/end"
    due=$(calc "min($TOTAL + 1 - $(cat "$RUN/minutes"), $(left_of_call))")
    is "$due > 0" && [ "$(cat "$RUN/step")" -lt "$steps" ] && stretch "$steps" "$decay" "$due" "$@"
fi

echo "step $(cat "$RUN/step") after $(cat "$RUN/minutes") minutes$([ -f "$RUN/end" ] && echo ", to end at step $(cut -d' ' -f1 "$RUN/end")")"
if [ -n "${OUT:-}" ]; then
    rm -f "$OUT"/snapshot-*
    cp "$RUN"/snapshot/* "$RUN/log.jsonl" "$RUN/curves.png" "$OUT"/
fi
