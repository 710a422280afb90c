# Sourced by the scripts beside it: a virtual environment with what is required.
# A second start finds the stamp of the same requirements and needs neither time nor network.

# The environment's folder: JAXVAE_VENV, for this script alone and not for what it starts.
venv=${JAXVAE_VENV:-.venv}
unset JAXVAE_VENV

die() { echo "$(basename "$0"): $*" >&2; exit 2; }

# usable PYTHON: runs, which a shim of pyenv may not, and is a finished release >= 3.11 (with the
# lock that wheels are made for).
usable() {
    "$1" - 2>/dev/null <<'PYTHON'
import sys, sysconfig
v = sys.version_info
sys.exit(v < (3, 11) or v.releaselevel != "final" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
PYTHON
}

# find_python [VERSION...]: prints the newest usable Python of these versions, found by its name or
# among pyenv's; without an argument of those for which all that is required has wheels, else
# whatever `python3` is. JAXVAE_PYTHON overrides the search. 3.13 is the newest that was tested.
find_python() {
    local candidate version
    local candidates=()
    if [ -n "${JAXVAE_PYTHON:-}" ]; then
        candidates=("$JAXVAE_PYTHON")
    else
        for version in ${*:-3.14 3.13 3.12 3.11}; do
            candidates+=("python$version")
            while read -r candidate; do
                candidates+=("$candidate")
            done < <(printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python | sort -rV)
        done
        [ $# -gt 0 ] || candidates+=(python3 python)
    fi
    for candidate in "${candidates[@]}"; do
        if usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python ${*:->= 3.11} found (JAXVAE_PYTHON=/path/to/python names one)"
}

# prepare FILE [CONSTRAINTS]: makes the environment if it is missing, and installs the requirements
# in FILE in versions that the file CONSTRAINTS allows; by uv where JAXVAE_UV names it, which takes a
# tenth of pip's time.
prepare() {
    local requirements=$1 constraints=${2:-} stamp
    if ! "$venv/bin/python" -c 'pass' 2>/dev/null; then
        rm -rf "$venv"
        local python
        python=$(find_python) || exit 2
        echo "Making $venv with $("$python" --version)" >&2
        "$python" -m venv "$venv" || die "no virtual environment could be made (on Debian: apt install python3-venv)"
    fi
    # What they include by -r belongs to the stamp as well.
    stamp=$venv/.installed-$(cat requirements*.txt docs/requirements.txt .ci/*.txt "$@" 2>/dev/null | cksum | cut -d ' ' -f 1)-$(basename "$requirements" .txt)
    if [ ! -e "$stamp" ]; then
        echo "Installing $requirements (once)" >&2
        local installer=("$venv/bin/python" -m pip install --disable-pip-version-check)
        [ -z "${JAXVAE_UV:-}" ] || installer=("$JAXVAE_UV" pip install --python "$venv/bin/python")
        "${installer[@]}" --quiet -r "$requirements" ${constraints:+-c "$constraints"} ||
            die "the requirements could not be installed; see the message above"
        touch "$stamp"
    fi
}
