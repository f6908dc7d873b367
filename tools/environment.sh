# Sourced by tools/quickstart and tools/test: the virtual environment and Debian's packages.
#
# Both functions are idempotent and cost milliseconds when nothing is to be done.

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

have() { command -v "$1" >/dev/null 2>&1; }

# The first Python that is new enough and runs; names what was looked for otherwise.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found (looked for python3, python3.11 …): install one, or set PYTHON"
}

# debian_packages NAME...: installs the missing ones when root and apt exist.
# A package that cannot be had is named and left out; the list is not tried again for a day.
debian_packages() {
    have apt-get && have dpkg-query || return 0
    local missing=() name unavailable=()
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! is_root; then
        say "not root, so these Debian packages stay missing: ${missing[*]}"
        return 0
    fi
    local note=.venv/left-out
    if [ -f "$note" ] && [ "$(cat "$note")" = "${missing[*]}" ] && [ -n "$(find "$note" -mmin -1440)" ]; then
        say "Debian packages that could not be installed (not tried again today): ${missing[*]}"
        return 0
    fi
    say "installing Debian packages: ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
    "${apt[@]}" update >/dev/null || say "apt-get update failed: going on with the package lists at hand"
    if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null; then
        for name in "${missing[@]}"; do
            "${apt[@]}" install -y --no-install-recommends "$name" >/dev/null 2>&1 || unavailable+=("$name")
        done
    fi
    if [ ${#unavailable[@]} -gt 0 ]; then
        say "Debian packages that could not be installed: ${unavailable[*]}"
        mkdir -p .venv && printf '%s\n' "${unavailable[*]}" >"$note"
    fi
}

# python_environment [EXTRAS]: .venv with the project (editable) and the named extras.
# Done again only when pyproject.toml, this file, the extras or the Python change. The project's
# folder is put on the path by a line of text: what setuptools does otherwise is an import hook that
# costs every start of the interpreter as much as the interpreter itself.
python_environment() {
    local extras=${1:-} python stamp wanted
    stamp=".venv/installed${extras:+-$extras}"
    wanted="$(cat pyproject.toml tools/environment.sh | sha256sum | cut -d' ' -f1)"
    if [ -x .venv/bin/python ] && .venv/bin/python -c pass 2>/dev/null &&
        [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            debian_packages python3-venv
        fi
        say "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv ||
            fail "could not make .venv: install the venv module of $python (Debian: apt install python3-venv)"
    fi
    say "installing the project${extras:+ with [$extras]}"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --config-settings editable_mode=compat --editable ".${extras:+[$extras]}" ||
        fail "pip could not install the project: see its message above"
    printf '%s\n' "$wanted" >"$stamp"
    # An environment with more extras serves those who ask for none.
    printf '%s\n' "$wanted" >.venv/installed
}
