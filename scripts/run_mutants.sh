#!/usr/bin/env bash
# Puts faults into copies of the sources, one at a time, and runs the tests that should notice.
#
#   scripts/run_mutants.sh                          all of tests/mutants/faults.toml; hours
#   scripts/run_mutants.sh --topic mask --no-whole  survivors do not get the whole suite
#   scripts/run_mutants.sh --only kl-without-half   one of them
#
# Also --jobs N and --results FILE (build/mutants.jsonl): a fault that has a result there for the
# same sources is not tried again, so what was stopped goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "scripts/$(basename "$0")"; exit 0 ;;
esac
. scripts/environment.sh
prepare "${JAXVAE_REQUIREMENTS:-requirements-dev.txt}"
exec "$venv/bin/python" -m tests.mutants.run "$@"
