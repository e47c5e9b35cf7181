#!/bin/bash
# make module: the nginx module, for the nginx of this machine or, where there is none, a vendored one.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

scripts/install.sh base || exit 1
build_module
