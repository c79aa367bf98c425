# Sourced by the scripts here. Everything that is built, fetched or measured goes below BENCH_HOME.
export BENCH_HOME=${BENCH_HOME:-$HOME/.cache/litplex-bench}
mkdir -p "$BENCH_HOME"/{venvs,target,data,logs}
