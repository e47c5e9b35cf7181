#!/bin/bash
# make chaos: many applications behind nginx with the module and behind the gateway, while they are killed, stopped and restarted, the web
# servers reload and clients leave (see bench/README.md).
#
#   make chaos REQUESTS=1000000 DURATION=30m SEED=7 CLIENTS=64 RECORD=bench/records/DATE-chaos.md
#
# Options are those of `chaos run`. Exit status: 0 when nothing came of it that must not.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

scripts/install.sh chaos || exit 1
say "Building the nginx module"
build_module || die "the nginx module does not build (see above)."
say "Building afcgi, afcgitest and chaos"
cargo build --release --quiet --locked --bin afcgi --bin afcgitest || die "they do not build (see above)."
cargo build --release --quiet --locked -p afcgi-chaos || die "chaos does not build (see above)."
export AFCGI=$root/target/release/afcgi AFCGITEST=$root/target/release/afcgitest

options=()
[ -z "${REQUESTS:-}" ] || options+=(--requests "$REQUESTS")
[ -z "${DURATION:-}" ] || options+=(--duration "$DURATION")
[ -z "${SEED:-}" ] || options+=(--seed "$SEED")
[ -z "${CLIENTS:-}" ] || options+=(--clients "$CLIENTS")
[ -z "${RECORD:-}" ] || options+=(--record "$RECORD")
exec target/release/chaos run "${options[@]}" "$@"
