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

# The Rust that the workspace needs at least.
rust_version=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Is version $1 at least version $2?
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# The version of the Rust in folder $1, without what follows its number; empty if there is none that works. Commands of rustup without
# a toolchain do not work.
rust_in() {
    [ -x "$1/cargo" ] && [ -x "$1/rustc" ] && "$1/cargo" --version >/dev/null 2>&1 &&
        "$1/rustc" --version 2>/dev/null | sed -n 's/^rustc \([0-9][0-9.]*\).*/\1/p'
}

# Puts the first Rust on PATH that is new enough before the others. False if there is none; the newest of the others is in $rust_old
# and its folder in $rust_old_folder then, both empty if there is none at all.
choose_rust() {
    local folder version first=yes
    local folders
    # Both for scripts/install.sh, which says what it found.
    # shellcheck disable=SC2034
    rust_old='' rust_old_folder=''
    IFS=: read -ra folders <<<"$PATH"
    for folder in "${folders[@]}"; do
        version=$(rust_in "$folder")
        [ -n "$version" ] || continue
        if at_least "$version" "$rust_version"; then
            [ -n "$first" ] || PATH=$folder:$PATH
            hash -r
            return 0
        fi
        first=
        if [ -z "$rust_old" ] || at_least "$version" "$rust_old"; then
            # shellcheck disable=SC2034
            rust_old=$version rust_old_folder=$folder
        fi
    done
    return 1
}

# What is built is looked for where cargo puts it by itself.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR

say() { printf '%s\n' "$*"; }

# The one clear line, and the end.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Says what is done now, and, when it is done, how long it took: begin WHAT, then ended.
begin() {
    began=$SECONDS
    printf '==> %s\n' "$*"
}
ended() { printf '    done in %d s\n' $((SECONDS - began)); }

have() { command -v "$1" >/dev/null 2>&1; }

# Installs what group $1 of scripts/install.sh is, and ends where that fails.
need() {
    scripts/install.sh "$1" || exit 1
    choose_rust
}

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
    begin "Building the nginx module (1 to 2 minutes the first time, on two cores)"
    nginx/build.sh "${flags[@]}" && ended
}
