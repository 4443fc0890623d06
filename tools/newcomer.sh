#!/usr/bin/env bash
# What somebody new waits for, and how much disk it takes: five journeys, each in an environment
# of its own outside of the checkout, from the wheel.
#
#   tools/newcomer.sh [FOLDER]          all five; environments lie in FOLDER one at a time
#   JOURNEYS="render gate score" tools/newcomer.sh      gate and score take the render's videos
#   UV="python -m uv" UV_CONSTRAINT=constraints.txt tools/newcomer.sh     the tested versions
#
# Prints a table: seconds for the installation and for the work, the processes that wanted to run
# at its end (more than the processors there are: all took longer), megabytes of site-packages.
# Packages that uv has in its cache are not fetched again: with an empty one (UV_CACHE_DIR) the
# network's time comes on top. A journey that fails ends the script with its exit code.
set -euo pipefail
UV=${UV:-uv}
JOURNEYS=${JOURNEYS:-diffusers render gate score sweep}
checkout=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "${1:-/tmp/newcomer}" && cd "${1:-/tmp/newcomer}" && pwd)
unset PYTHONPATH VIRTUAL_ENV
export UV_CONSTRAINT=${UV_CONSTRAINT:+$(realpath "$UV_CONSTRAINT")}
[ -n "$UV_CONSTRAINT" ] || unset UV_CONSTRAINT
tests=$checkout/tests/helpers

mkdir -p "$folder/work"
rm -rf "$folder/wheel"
(cd "$checkout" && $UV build --quiet --wheel --out-dir "$folder/wheel" .)
wheel=$(echo "$folder"/wheel/*.whl)
names=$(python3 -m zipfile --list "$wheel")
for name in vidcfg/py.typed vidcfg/configs/quickstart.yaml vidcfg/mini/checkpoint/model_index.json; do
    grep --quiet "^$name " <<< "$names" || { echo "the wheel lacks $name" >&2; exit 1; }
done
if grep '^\(tests\|tools\|scripts\)/' <<< "$names"; then
    echo "the wheel has more than the package" >&2
    exit 1
fi
cd "$folder/work"

install() { $UV pip install --quiet --python "$folder/venv/bin/python" "$@"; }
version_of() { "$folder/venv/bin/python" -c "import importlib.metadata as m; print(m.version('$1'))"; }
has_torch() { "$folder/venv/bin/python" -c 'import torch' 2> /dev/null; }

# Each journey: what is installed, then what is typed; `prepare` and `after` are not measured.
prepare_diffusers() { install torch diffusers transformers accelerate; }
install_diffusers() { install "$wheel"; }
work_diffusers() {
    PYTHONPATH=$tests "$folder/venv/bin/python" - << 'END'
import torch
import vidcfg
from tiny_video import wan

decay = vidcfg.Guidance(6.0, frames={"kind": "decay", "end": 0.3})
for guidance in (decay, 6.0):
    tiny = wan()  # the pipeline that somebody has: Wan's own classes with random weights
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
        latents = tiny.unguided()
    print(trace)
assert torch.equal(latents, wan().stock(6.0))
END
}
install_render() { install "$wheel[render]"; }
work_render() {
    local prompt="a red circle moving left over a navy background"
    vidcfg render quickstart --prompt "$prompt" --seed 0 --out first --overwrite
}
after_render() { vidcfg render quickstart --out clips --skip-existing --quiet; }
install_gate() { install "$wheel"; }
work_gate() {
    vidcfg regress record clips -o baseline --overwrite
    vidcfg regress check clips --baseline baseline -o gate
}
install_score() { install "$wheel"; }
work_score() { vidcfg evaluate clips -o scores; }
install_sweep() { install "$wheel[render,sweep]"; }
work_sweep() {
    cat > sweep.yaml << 'END'
schema: 1
name: newcomer
base:
  schema: 1
  name: newcomer
  model: {kind: mini}
  prompts: [a red circle moving left over a navy background]
  video: {num_frames: 17, height: 32, width: 32, fps: 8}
  sampling: {num_steps: 10, scheduler: flow_euler}
  guidance: {scale: 5.0}
  output: {dir: out, video: h264}
grid:
  guidance.scale: [1.0, 3.0, 8.0]
  guidance.frames: [uniform, {kind: decay, end: 0.3}]
prompts: [a red circle moving left over a navy background, a green square growing over a black background]
seeds: 0-1
store: store
END
    rm -rf store
    vidcfg sweep sweep.yaml --workers 2
}

printf '| journey | install, s | work, s | load | together, min | site-packages, MB | torch |\n'
printf '|---|---|---|---|---|---|---|\n'
for journey in $JOURNEYS; do
    rm -rf "$folder/venv"
    $UV venv --quiet --python "${PYTHON:-3.11}" "$folder/venv"
    export PATH="$folder/venv/bin:${PATH#"$folder"/venv/bin:}"
    before=
    if [ "$(type -t "prepare_$journey")" = function ]; then
        "prepare_$journey"
        before=$(version_of torch)
    fi
    begin=$(date +%s%N)
    "install_$journey"
    installed=$(date +%s%N)
    "work_$journey" > "$folder/$journey.log" 2>&1 || { cat "$folder/$journey.log" >&2; exit 1; }
    end=$(date +%s%N)
    vidcfg doctor > "$folder/$journey.doctor.log" || { cat "$folder/$journey.doctor.log" >&2; exit 1; }
    if [ -n "$before" ] && [ "$before" != "$(version_of torch)" ]; then
        echo "torch was $before, vidcfg made it $(version_of torch)" >&2
        exit 1
    fi
    if [ "$(type -t "after_$journey")" = function ]; then "after_$journey"; fi
    torch=none
    if has_torch; then torch=$(version_of torch); fi
    size=$(du --summarize --block-size=1000000 "$folder"/venv/lib/python*/site-packages | cut -f1)
    printf '| %s | %.1f | %.1f | %s | %.2f | %s | %s |\n' "$journey" \
        "$(echo "($installed - $begin) / 10^9" | bc -l)" "$(echo "($end - $installed) / 10^9" | bc -l)" \
        "$(cut -d' ' -f1 /proc/loadavg)" "$(echo "($end - $begin) / (60 * 10^9)" | bc -l)" "$size" "$torch${before:+, as before}"
done
rm -rf "$folder/venv"
