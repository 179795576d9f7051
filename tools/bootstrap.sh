#!/usr/bin/env bash
# Create .venv and install the five packages into it, editable, at the pinned versions.
#   tools/bootstrap.sh         what a user needs
#   tools/bootstrap.sh --dev   the same, and the test and lint tools
# PYTHON chooses the interpreter (default python3), VENV the environment (default .venv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "bootstrap: Python >= 3.11 is needed, $python is $("$python" --version 2>&1)." \
        "Set PYTHON to a newer interpreter, e.g. PYTHON=python3.12 make demo" >&2
    exit 1
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt uv

# uv does not read pip's settings: pass on the folder or page of wheels that pip is told to look at, if any, so that
# a machine that keeps a CPU build of torch installs that one.
if [ -z "${UV_FIND_LINKS:-}" ]; then
    links=$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null ||
        "$venv/bin/python" -m pip config get install.find-links 2>/dev/null || true)
    links=${PIP_FIND_LINKS:-$links}
    [ -z "$links" ] || export UV_FIND_LINKS="${links//[[:space:]]/,}"
fi

arguments=(-e "packages/mri-io[demo,formats,remote,report,train]")
for package in "recon[noncart]" seg joint cli; do
    arguments+=(-e "packages/mri-$package")
done
if [ "${1:-}" = "--dev" ]; then
    arguments=(-e "packages/mri-io[dashboard,demo,formats,remote,report,slurm,train]" "${arguments[@]:2}" --group dev)
fi
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode -c constraints.txt "${arguments[@]}"
"$venv/bin/uv" pip check --quiet --python "$venv/bin/python"
echo "Installed into $venv. Next: source $venv/bin/activate, then mri-cli --help"
