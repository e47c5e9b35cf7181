#!/bin/bash
# make bench: this project beside its peers, in one run (see bench/README.md).

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need bench
build_module || die "the nginx module does not build (see above)."
exec bench/run.sh "$@"
