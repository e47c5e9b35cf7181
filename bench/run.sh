#!/bin/sh
# The whole comparison, with the options of `afcgi-bench run`.
cd "$(dirname "$0")/.." && exec cargo run --release --quiet --locked -p afcgi-bench -- run "$@"
