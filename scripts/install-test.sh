#!/bin/bash
# What scripts/install.sh does on machines that this one is not: with apt-get, Rust and root as programs that pretend. Nothing is
# installed, and nothing outside of a temporary folder is written.
#
# Exit status: 0 when all is as it should be.

# What is in single quotes is for the programs that pretend.
# shellcheck disable=SC2016

set -u
cd "$(dirname "$0")/.." || exit 1

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
passed=0

# A machine without anything but the shell's tools, whose Debian has Rust 1.63 as rustc and 1.96 as rustc-web.
machine() {
    rm -rf "${work:?}/bin" "${work:?}/home"
    mkdir -p "$work/bin" "$work/home"
    : >"$work/calls"
    local tool
    for tool in bash sh sed sort head tail cut tr grep awk paste mktemp rm cat comm sleep dirname basename env mkdir; do
        ln -s "$(command -v $tool)" "$work/bin/$tool"
    done
    pretend id 'echo 0'
    # Nothing is written but in $work.
    pretend tee 'cat >/dev/null'
    pretend chmod true
    pretend dpkg true
    pretend dpkg-query true
    pretend apt-cache 'case $2 in rustc) echo "  Candidate: 1.63.0+dfsg1-2" ;; rustc-web) echo "  Candidate: 1.96.0+dfsg1-1" ;; *) echo "  Candidate: (none)" ;; esac'
    pretend apt-get 'echo "$*" >>'"$work"'/calls
case "$*" in
    *--assume-no*) echo "Need to get 166 MB of archives."; echo "After this operation, 702 MB of additional disk space will be used." ;;
    *" install "*rustc-web*) for tool in rustc cargo; do printf "#!/bin/sh\necho $tool 1.96.0\n" >'"$work"'/bin/$tool; '"$(command -v chmod)"' 755 '"$work"'/bin/$tool; done ;;
esac'
}

# A program of the machine: pretend NAME COMMANDS.
pretend() {
    rm -f "$work/bin/$1"
    printf '#!/bin/sh\n%s\n' "$2" >"$work/bin/$1"
    chmod 755 "$work/bin/$1"
}

# Runs the installer there; $said is what it says, $status how it ends.
installs() {
    said=$(env -i PATH="$work/bin" HOME="$work/home" "$work/bin/bash" -c '
        # The folders of the real machine are not looked at.
        PATH=$PATH; . scripts/lib.sh; export PATH='"$work/bin"'
        exec bash scripts/install.sh '"$1" 2>&1 </dev/null)
    status=$?
}

# check WHAT COMMAND…
check() {
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'WRONG: %s. Exit status %s, calls:\n%s\nIt says:\n%s\n' "$what" "$status" "$(cat "$work/calls")" "$said"
    fi
}
says() { [[ $said == *"$1"* ]]; }
is() { [ "$status" = "$1" ]; }
called() { grep -qe "$1" "$work/calls"; }

machine
installs rust
check "Debian's newest Rust is taken" is 0
check "it is rustc-web" called ' install.* rustc-web cargo-web'
check "it says how much that is" says '166 MB to fetch, 702 MB on disk'
check "it says how long that took" says 'done in'

machine
pretend rustc 'echo rustc 1.90.0'
pretend cargo 'echo cargo 1.90.0'
installs rust
check "a Rust that is new enough is used" is 0
check "and no other is installed" eval '! called rustc-web'

machine
pretend rustc 'echo rustc 1.63.0'
pretend cargo 'echo cargo 1.63.0'
installs rust
check "a Rust that is too old is not used" called ' install.* rustc-web'
check "and it is said" says "has 1.63.0"

machine
pretend apt-cache 'case $2 in rustc) echo "  Candidate: 1.63.0+dfsg1-2" ;; esac'
installs base
check "without a Rust nothing is installed" is 1
check "nor asked for" eval '! called " install "'
check "and it is said what helps" says 'security archive'

machine
pretend apt-cache 'case $2 in rustc) echo "  Candidate: 1.63.0+dfsg1-2" ;; esac'
pretend apt-get 'echo "E: Failed to fetch http://x/ Could not resolve" >&2; exit 100'
installs rust
check "without a network it fails" is 1
check "with what helps" says 'Connect this machine to a network'

machine
pretend id 'echo 1000'
pretend apt-cache 'case $2 in rustc) echo "  Candidate: 1.63.0+dfsg1-2" ;; esac'
installs base
check "without root it fails" is 1
check "with the command to run" says "Run 'apt-get update && apt-get install rustc-web cargo-web"
check "in one line" eval '[ "$(wc -l <<<"$said")" = 1 ]'

machine
mv "$work/bin/apt-get" "$work/bin/real"
pretend apt-get 'case "$*" in *" install "*) [ -e '"$work"'/waited ] || { : >'"$work"'/waited
echo "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (dpkg)" >&2; exit 100; } ;; esac; exec '"$work"'/bin/real "$@"'
installs rust
check "another package manager is waited for" is 0

machine
pretend apt-get 'case "$*" in *" install "*) echo "dpkg: error processing package gcc (--configure): no space left" >&2
echo "E: Sub-process /usr/bin/dpkg returned an error code (1)" >&2; exit 100 ;; esac'
installs rust
check "a package that cannot be installed is named" says 'error processing package gcc (--configure): no space left'

machine
pretend apt-cache 'echo "  Candidate: (none)"'
reason="could not download file from a server with a name that is so long that a message that is cut at the hundred and sixtieth of its characters does not say why: connection refused"
pretend rustup 'echo "info: syncing" >&2; echo "error: '"$reason"'" >&2; exit 1'
installs rust
check "what rustup says is not cut" says "$reason"

printf '%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
