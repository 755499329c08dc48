#!/usr/bin/env bash
# What the scripts share. Source it; it sets no options and changes no directory.

# step TEXT...: one line of progress, on stderr.
step() {
    if [[ -t 2 && -z "${NO_COLOR:-}" ]]; then
        printf '\033[1;32m==>\033[0m %s\n' "$*" >&2
    else
        printf '==> %s\n' "$*" >&2
    fi
}

# fail TEXT...: says why, and ends the script.
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# need_command NAME HINT: the command must exist.
need_command() {
    command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

# need_rust_target TARGET: adds it to the active toolchain unless it is there.
need_rust_target() {
    need_command cargo "see https://rustup.rs"
    # Inside the project, rust-toolchain.toml makes rustup install the toolchain itself on the first call.
    local libdir
    libdir=$(rustc --print target-libdir --target "$1") || fail "rustc does not know the target $1"
    [[ -d "$libdir" ]] && return
    step "adding the Rust target $1"
    command -v rustup >/dev/null \
        || fail "the Rust target $1 is missing and there is no rustup to add it: install this target's std for $(rustc --version)"
    rustup --quiet target add "$1" >&2 || fail "rustup could not add the Rust target $1"
}
