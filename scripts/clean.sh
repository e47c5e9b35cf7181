#!/bin/bash
# make clean: removes what was built, here and in nginx/.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

rm -rf target nginx/target nginx/build bench/peers/target
find nginx/prefix/run -mindepth 1 ! -name .gitignore -delete
