#!/bin/bash
# make demo: the demonstration by itself, web server and application in one process, until Ctrl-C or until its terminal is closed. Needs
# Rust and nothing else. What is given here is passed on: scripts/demo.sh --listen 127.0.0.1:9000
#
# Exit status: 0 when asked to stop, 1 when it could not be built or started.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Before anything is fetched or built. The program looks at other addresses itself.
if [ $# = 0 ]; then
    user=$(port_user 8888)
    [ -z "$user" ] || die "port 8888 of 127.0.0.1 is in use by $user. Stop that, or choose another address: make demo LISTEN=127.0.0.1:9000"
fi
need rust
begin "Building the demonstration (2 to 4 minutes the first time)"
cargo build --release --bin afcgi || die "afcgi does not build (see above)."
ended

# Thousands of clients at a time, as far as this user may.
ulimit -n "$(ulimit -Hn)" 2>/dev/null

exec target/release/afcgi demo "$@"
