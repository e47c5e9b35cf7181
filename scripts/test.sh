#!/bin/bash
# make test: everything that CI runs, step by step, with the time each took. All steps run, whatever the ones before gave; one that
# failed makes the whole fail. Nothing is skipped: a web server or tool that cannot be had is a failure.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need test

summary=()
failed=0

# step NAME COMMAND…: runs it with its output as it comes.
step() {
    local name=$1 start=$SECONDS outcome
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    if "$@"; then
        outcome=ok
    else
        outcome="FAILED (exit status $?)"
        failed=1
    fi
    summary+=("$(printf '%-12s %4d s  %s' "$name" $((SECONDS - start)) "$outcome")")
    printf '==> %s\n' "${summary[-1]}"
}

# A whole machine of dependencies is compiled: line tables are enough to read a backtrace by, and half the time.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_TEST_DEBUG=line-tables-only
export CARGO_TERM_PROGRESS_WHEN=never

# What crates that link to nginx are compiled against: the sources that nginx/build.sh has just configured.
against_nginx() {
    local objs
    objs=$(find "$root"/nginx/build -maxdepth 2 -name objs -printf '%T@ %p\n' | sort -rn | head -n 1 | cut -d ' ' -f 2)
    [ -n "$objs" ] || { say "there is no configured nginx in nginx/build"; return 1; }
    NGINX_SOURCE_DIR=${objs%/objs} NGINX_BUILD_DIR=$objs "$@"
}

# The library with one of its features at a time.
each_feature() {
    local feature
    for feature in client server http systemd; do
        cargo clippy --locked --quiet -p afcgi --no-default-features --features "$feature" -- -D warnings || return 1
    done
}

others=(--workspace --exclude afcgi-nginx)

step format cargo fmt --all --check
step scripts shellcheck -x scripts/*.sh nginx/build.sh bench/run.sh .ci/run
step installer scripts/install-test.sh
step module build_module
step faults nginx/build.sh --faults
step lints cargo clippy --locked --quiet "${others[@]}" --all-targets -- -D warnings
step features each_feature
step docs env RUSTDOCFLAGS='-D warnings' cargo doc --locked --quiet "${others[@]}" --no-deps
step lints-nginx against_nginx cargo clippy --locked --quiet -p afcgi-nginx --all-targets -- -D warnings
# It is no library to use: its documentation is for those who work on it.
step docs-nginx against_nginx env RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --quiet -p afcgi-nginx --no-deps --document-private-items
step tests cargo test --locked --quiet --no-fail-fast "${others[@]}" --exclude afcgi-interop --exclude afcgi-nginx-tests --exclude afcgi-chaos
# Hundreds of megabytes go through an optimised afcgitest.
step afcgitest cargo build --locked --quiet --release --bin afcgitest
step nginx env AFCGITEST="$root/target/release/afcgitest" cargo test --locked --quiet --no-fail-fast -p afcgi-nginx-tests
# They wait more than they compute.
step peers env RUST_TEST_THREADS=4 cargo test --locked --quiet --no-fail-fast -p afcgi-interop
step chaos cargo test --locked --quiet --no-fail-fast -p afcgi-chaos

printf '\n'
printf '%s\n' "${summary[@]}"
if [ $failed != 0 ]; then
    say "make test: failed"
    exit 1
fi
say "make test: all passed in $SECONDS s"
