# shellcheck shell=bash
#
# What the scripts share: words to the user, the build, ports. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

# rustup puts cargo here and asks for a new login; do without.
case ":$PATH:" in
    *:"${CARGO_HOME:-$HOME/.cargo}/bin":*) ;;
    *) PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH ;;
esac
# A user's PATH often lacks the folders of the servers.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# What is built is looked for where cargo puts it by itself.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR

say() { printf '%s\n' "$*"; }

# The one clear line, and the end.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Who listens on port $1 of 127.0.0.1; empty if nobody does.
port_user() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
    local who=
    have ss && who=$(ss -Hltnp "sport = :$1" 2>/dev/null | sed -n 's/.*users:((\("[^"]*",pid=[0-9]*\).*/\1/p' | head -n 1 | tr -d '"' | sed 's/,pid=/, process /')
    printf '%s' "${who:-another program}"
}

# The nginx that the module in nginx/build is for: the vendored one if that was built, otherwise the one of the distribution.
nginx_binary() {
    if [ -x nginx/build/nginx ]; then
        printf '%s' nginx/build/nginx
    else
        command -v nginx
    fi
}

# Builds the module, against the nginx of the distribution or, where there is none, the vendored one.
build_module() {
    local flags=()
    if ! scripts/install.sh nginx; then
        say "The nginx of the distribution cannot be installed: building the vendored one instead."
        flags=(--vendored)
    fi
    nginx/build.sh "${flags[@]}"
}
