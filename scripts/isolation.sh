#!/bin/bash
# make isolation: whether one request can hurt the others on a shared connection (see bench/README.md). Options are those of
# `afcgi-bench isolation`.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need bench
build_module || die "the nginx module does not build (see above)."
exec cargo run --release --quiet --locked -p afcgi-bench -- isolation "$@"
