#!/bin/bash
# Installs what is missing, and nothing else. Silent and quick when nothing is.
#
# Usage: scripts/install.sh GROUP
#   rust    compiler, linker, Rust: what the crates need that have nothing to do with nginx
#   base    rust, and what every build of the module needs
#   nginx   the nginx of the distribution and what a module for it is built with
#   build   base and nginx
#   test    build, and the web servers and languages that the tests talk to
#   bench   build, and the peers that are measured
#   chaos   build, and the applications that are killed in it
#   hosts   build, and what makes network namespaces
#
# It installs packages of Debian (12 and later) as root or through sudo, starts none of the daemons among them and leaves those it has
# installed disabled, so that they do not come up with the machine either. What Debian does not have goes to target/.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

rust_version=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Each needed thing: "package: test", where the test is a command to find or a pattern that names a file. What is there by other means
# than the package counts.
rust_needs=(
    "gcc: gcc"
    "libc6-dev: /usr/include/stdio.h"
    "ca-certificates: /etc/ssl/certs/ca-certificates.crt"
)
base_needs=(
    "${rust_needs[@]}"
    "make: make"
    "pkg-config: pkg-config"
    "libclang-dev: /usr/lib/llvm-*/lib/libclang.so*"
    "curl: curl"
)
nginx_needs=(
    "nginx: nginx"
    "nginx-dev: /usr/share/nginx/src/conf_flags"
)
test_needs=(
    "haproxy: haproxy"
    "lighttpd: lighttpd"
    "apache2: /usr/lib/apache2/modules/mod_proxy_fcgi.so"
    "caddy: caddy"
    "php-fpm: /usr/sbin/php-fpm*"
    "golang-go: go"
    "openssl: openssl"
    "shellcheck: shellcheck"
    "spawn-fcgi: spawn-fcgi"
    "libfcgi-dev: /usr/include/fcgiapp.h"
    "libfcgi-perl: /usr/lib/*/perl5/*/FCGI.pm"
    "python3: python3"
    "python3-pip: pip3"
    "nghttp2-client: h2load"
    "wrk: wrk"
    "chromium: chromium"
    "chromium-driver: chromedriver"
)
bench_needs=(
    "caddy: caddy"
    "haproxy: haproxy"
    "golang-go: go"
    "libfcgi-dev: /usr/include/fcgiapp.h"
)
chaos_needs=(
    "php-fpm: /usr/sbin/php-fpm*"
    "golang-go: go"
    "libfcgi-dev: /usr/include/fcgiapp.h"
)
hosts_needs=(
    "iproute2: ip"
)
# The services that these packages bring.
daemons="nginx haproxy lighttpd apache2 caddy php*-fpm"

is_there() {
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        *) have "$1" ;;
    esac
}

# The packages of the given needs that are missing.
missing() {
    local need
    for need in "$@"; do
        is_there "${need#*: }" || printf '%s\n' "${need%%:*}"
    done
}

is_debian() { [ -e /etc/debian_version ] && have apt-get && have dpkg; }

# Is version $1 at least version $2?
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

policy=/usr/sbin/policy-rc.d
policy_is_ours=
work=
allow_daemons() {
    [ -z "$policy_is_ours" ] || as_root rm -f "$policy"
    policy_is_ours=
}
tidy() {
    allow_daemons
    [ -z "$work" ] || rm -rf "$work"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Can root be had, by being it or through sudo?
may_be_root() {
    [ "$(id -u)" = 0 ] && return
    have sudo || return
    [ -t 0 ] || sudo -n true 2>/dev/null
}

# apt-get with its talk in a file, shown if it fails only.
apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >"$work/apt.log" 2>&1 </dev/null
}

# The lines in which apt-get says what went wrong, as one.
complaint() { grep -E '^(E|W|Err):?' "$work/apt.log" | tail -n 2 | tr '\n' ' '; }

# Services of the wanted packages that exist, by unit name.
services() {
    local pattern
    for pattern in $daemons; do
        compgen -G "/lib/systemd/system/$pattern.service" | sed 's|.*/||'
    done
}

# Brings the package lists up to date, once.
refresh() {
    [ -z "$work" ] || return 0
    work=$(mktemp -d) || die "no temporary folder."
    if ! apt update; then
        say "apt-get update failed, going on with the package lists that are there: $(complaint)" >&2
    fi
}

# Installs the packages. False, with a clear line, if that cannot be done.
install() {
    local before now
    if ! is_debian; then
        say "Missing: $*. This is not Debian: install what your system calls these." >&2
        return 1
    fi
    if ! may_be_root; then
        say "Missing: $*. Run 'apt-get install $*' as root, or run this as root or as a user who may use sudo." >&2
        return 1
    fi
    say "Installing with apt-get: $*"
    refresh
    if [ ! -e "$policy" ]; then
        # Asked by every package before it starts its daemon; 101 forbids it.
        policy_is_ours=yes
        if ! printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null || ! as_root chmod 755 "$policy"; then
            die "cannot write $policy."
        fi
    fi
    before=$(services)
    if ! apt install --no-install-recommends "$@"; then
        say "apt-get cannot install $* (is there a network?): $(complaint)" >&2
        allow_daemons
        return 1
    fi
    now=$(comm -13 <(sort <<<"$before") <(services | sort))
    if [ -n "$now" ] && have systemctl; then
        # shellcheck disable=SC2086 # one word per service
        as_root systemctl --quiet disable $now >/dev/null 2>&1
        # shellcheck disable=SC2116,SC2086
        say "Left disabled: $(echo $now)"
    fi
    allow_daemons
}

# The version of the distribution's package $1, without its revision.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9][0-9.]*\).*/\1/p'; }

# The version of the Rust that works here; empty if none does. Commands of rustup without a toolchain do not work.
rust_found() {
    have cargo && cargo --version >/dev/null 2>&1 && rustc --version 2>/dev/null | cut -d ' ' -f 2
}

# rustup with its talk in a file, of which the error is shown if it fails.
quietly_rustup() {
    local log
    log=$(mktemp) || die "no temporary folder."
    rustup "$@" >"$log" 2>&1 || {
        local error
        error=$(sed -n 's/^error: //p' "$log" | head -n 1 | cut -c 1-160)
        rm -f "$log"
        die "rustup $1 $2 failed (is there a network?): $error"
    }
    rm -f "$log"
}

# Rust, new enough, with the components named.
need_rust() {
    local found component lacking=()
    found=$(rust_found)
    if [ -z "$found" ] && ! have rustup && is_debian && may_be_root; then
        refresh
        if at_least "$(candidate rustc)" "$rust_version"; then
            install cargo rustc || exit 1
        elif [ -n "$(candidate rustup)" ]; then
            install rustup || exit 1
        fi
        hash -r
    fi
    if [ -z "$found" ] && have rustup; then
        say "Installing the stable Rust toolchain with rustup"
        quietly_rustup toolchain install stable --profile minimal
        quietly_rustup default stable
    fi
    found=$(rust_found)
    if [ -z "$found" ]; then
        die "Rust $rust_version or newer is needed and cannot be had from here: run 'curl -sSf https://sh.rustup.rs | sh -s -- -y', then this again."
    fi
    if ! at_least "$found" "$rust_version"; then
        die "Rust $rust_version or newer is needed, and this is $found: run 'rustup update stable' (see https://rustup.rs), then this again."
    fi
    for component in "$@"; do
        case $component in
            rustfmt) have cargo-fmt && cargo fmt --version >/dev/null 2>&1 ;;
            clippy) have cargo-clippy && cargo clippy --version >/dev/null 2>&1 ;;
        esac || lacking+=("$component")
    done
    [ ${#lacking[@]} = 0 ] && return
    if have rustup; then
        say "Installing with rustup: ${lacking[*]}"
        quietly_rustup component add "${lacking[@]}"
    else
        install "${lacking[@]/#clippy/rust-clippy}" || exit 1
    fi
}

# Python's flup, which Debian has no more, for the tests alone: the wheel whose checksum is written down, in target/.
need_flup() {
    local folder=target/interop/flup log
    [ -e "$folder/flup/server/fcgi.py" ] && return
    say "Installing with pip, in $folder: flup"
    log=$(mktemp) || die "no temporary folder."
    env PIP_ROOT_USER_ACTION=ignore pip3 --disable-pip-version-check --no-input install --quiet --no-deps --only-binary :all: \
        --require-hashes --target "$folder" -r interop/peers/flup/requirements.txt >"$log" 2>&1 </dev/null || {
        local error
        error=$(tail -n 1 "$log" | cut -c 1-160)
        rm -f "$log"
        die "pip3 cannot install flup (is there a network?): $error"
    }
    rm -f "$log"
}

case ${1-} in
    rust) needs=("${rust_needs[@]}") ;;
    base) needs=("${base_needs[@]}") ;;
    nginx) needs=("${nginx_needs[@]}") ;;
    build) needs=("${base_needs[@]}" "${nginx_needs[@]}") ;;
    test) needs=("${base_needs[@]}" "${nginx_needs[@]}" "${test_needs[@]}") ;;
    bench) needs=("${base_needs[@]}" "${nginx_needs[@]}" "${bench_needs[@]}") ;;
    chaos) needs=("${base_needs[@]}" "${nginx_needs[@]}" "${chaos_needs[@]}") ;;
    hosts) needs=("${base_needs[@]}" "${nginx_needs[@]}" "${hosts_needs[@]}") ;;
    *) die "usage: scripts/install.sh rust|base|nginx|build|test|bench|chaos|hosts" ;;
esac

mapfile -t packages < <(missing "${needs[@]}")
if [ ${#packages[@]} != 0 ]; then
    install "${packages[@]}" || exit 1
fi

case $1 in
    rust | base | build | bench | hosts) need_rust ;;
    test)
        need_flup
        need_rust rustfmt clippy
        ;;
esac
