#!/usr/bin/env bash
# Runs the tests: makes .venv if it is missing, installs what they need, calls pytest.
#
#   scripts/run_tests.sh                             those to run before each commit
#   scripts/run_tests.sh tests                       the long ones too: studies, ensembles, whole tables
#   scripts/run_tests.sh tests/models/test_vae.py    arguments go to pytest
#   scripts/run_tests.sh -m faults tests/faults      kills, full disks, hostile files; minutes
#
# Tests that need PyTorch, or the MusicCaps rows that JAXVAE_SHARED points to, skip without them.
# The environment is .venv, of requirements-dev.txt on the newest Python; others by JAXVAE_VENV,
# JAXVAE_PYTHON, JAXVAE_REQUIREMENTS and JAXVAE_CONSTRAINTS (files).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "scripts/$(basename "$0")"; exit 0 ;;
esac
. scripts/environment.sh
prepare "${JAXVAE_REQUIREMENTS:-requirements-dev.txt}" ${JAXVAE_CONSTRAINTS:+"$JAXVAE_CONSTRAINTS"}
unset PYTHONDONTWRITEBYTECODE # hundreds of processes would each compile what they import
unset JAXVAE_REQUIREMENTS JAXVAE_CONSTRAINTS # not for what the tests start
# Compilers ask for memory millions of times. Where jemalloc is installed (on Debian: libjemalloc2),
# the tests take an eighth less, with what was freed kept for the next program.
if [ -z "${LD_PRELOAD:-}" ] && LD_PRELOAD=libjemalloc.so.2 "$venv/bin/python" -c '
import sys; sys.exit("libjemalloc" not in open("/proc/self/maps").read())' 2>/dev/null; then
    export LD_PRELOAD=libjemalloc.so.2
    export MALLOC_CONF=${MALLOC_CONF:-dirty_decay_ms:-1,muzzy_decay_ms:-1}
fi
# A file of tests in one process, the next in another, and three of them, one more than two cores:
# files wait for the disk and for what they start. A process that crashes ends the run, which names
# the test: pytest-xdist would start another one, and then wait for the crashed one's files for ever.
exec "$venv/bin/python" -m pytest -n 3 --dist loadfile --max-worker-restart=0 "$@"
