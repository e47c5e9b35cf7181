#!/bin/bash
# make module: the nginx module, for the nginx of this machine or, where there is none, a vendored one.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need base
build_module
