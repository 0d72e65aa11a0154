#!/bin/sh
# Makes the shipped bundles again: logs trajectories, then trains. Half an hour on two free cores.
# Usage: sh models/exploration/bundles.sh TRACE OUT    (TRACE: requests per minute, Parquet or CSV)
# Only days 38 to 43 of the trace are used; the seven last full days are for testing.
set -eu
trace=$1
out=$2
here=$(dirname "$0")
data=$out/.trajectories
mkdir -p "$data"

# nav2d in two rounds as well, with a model of half the usual size, which plans as well. Who is led by
# the first actor arrives and still pushes: without such logs, robots at their goals surprise a model.
nav2d() {
  rehearse backtest "$here/nav2d.yaml" --policy fallback --ticks 150 --seed 1 --log "$data/nav-free-1"
  rehearse backtest "$here/nav2d.yaml" --policy fallback --ticks 150 --seed 2 --log "$data/nav-free-2"
  rehearse backtest nav2d --policy explore --share 0.8 --ticks 150 --seed 3 --log "$data/nav-brake-3"
  set -- --data "$data/nav-free-1" --data "$data/nav-free-2" --data "$data/nav-brake-3"
  half="--split entity --memory 16 --units 32 --free 2 --steps 2000 --actor-steps 3000"
  rehearse train nav2d "$@" $half --out "$data/nav-first"
  rehearse backtest nav2d --policy actor --bundle "$data/nav-first" --ticks 150 --seed 4 \
    --log "$data/nav-drive-4"
  rehearse train nav2d "$@" --data "$data/nav-drive-4" $half --out "$out/nav2d"
}

# autoscale in two rounds: the first model learns from the fallback, hot and explored; the second
# also from what a planner does with the first, where overloads are rare and small shares matter.
explored() { # name, day, share
  rehearse backtest autoscale --trace "$trace" --day "$2" --policy explore --share "$3" \
    --seed "$2" --log "$data/$1-$2"
}
hot() { # day
  rehearse backtest "$here/autoscale.yaml" --trace "$trace" --day "$1" --policy fallback \
    --seed "$1" --log "$data/hot-$1"
}
planned() { # day
  rehearse backtest autoscale --trace "$trace" --day "$1" --policy planner --unhurried \
    --bundle "$data/first" --seed "1$1" --log "$data/plan-$1"
}
autoscale() {
  explored mixed 40 0.5
  hot 42
  explored calm 39 0.2
  rehearse train autoscale --data "$data/mixed-40" --data "$data/hot-42" --data "$data/calm-39" \
    --steps 1500 --no-actor --out "$data/first"
  planned 41
  planned 43
  explored mixed 38 0.3
  rehearse train autoscale --data "$data/plan-41" --data "$data/plan-43" --data "$data/calm-39" \
    --data "$data/mixed-38" --data "$data/mixed-40" --data "$data/hot-42" \
    --steps 4000 --actor-steps 1000 --out "$out/autoscale"
}

nav2d &
other=$!
autoscale
wait "$other"
