# Sourced by the scripts beside it: a virtual environment in .venv with what is required.
# A second start finds the stamp of the same requirements and needs neither time nor network.

die() { echo "$(basename "$0"): $*" >&2; exit 2; }

# Prints the newest usable Python >= 3.11 (JAXVAE_PYTHON overrides the search).
find_python() {
    local candidate
    for candidate in ${JAXVAE_PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python >= 3.11 found (JAXVAE_PYTHON=/path/to/python names one)"
}

# prepare FILE: makes .venv if it is missing and installs the requirements in FILE.
prepare() {
    local requirements=$1 stamp
    if ! .venv/bin/python -c 'pass' 2>/dev/null; then
        rm -rf .venv
        local python
        python=$(find_python) || exit 2
        echo "Making .venv with $("$python" --version)" >&2
        "$python" -m venv .venv || die "no virtual environment could be made (on Debian: apt install python3-venv)"
    fi
    # What is included by -r belongs to the stamp as well.
    stamp=.venv/.installed-$(cat requirements*.txt "$requirements" | cksum | cut -d ' ' -f 1)-$(basename "$requirements" .txt)
    if [ ! -e "$stamp" ]; then
        echo "Installing $requirements (once)" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" ||
            die "the requirements could not be installed; see pip's message above"
        touch "$stamp"
    fi
}
