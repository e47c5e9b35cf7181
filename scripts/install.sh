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
# Rust comes first: whatever else is missing is fetched only when there is one that is new enough. What is on PATH is used, otherwise
# Debian's own, and rustup where Debian has none.
#
# It installs packages of Debian (12 and later) as root or through sudo, starts none of the daemons among them and leaves those it has
# installed disabled, so that they do not come up with the machine either. What Debian does not have goes to target/.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

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
    "php-cgi: php-cgi"
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
    "tshark: tshark"
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

policy=/usr/sbin/policy-rc.d
policy_is_ours=
work=
watcher=
allow_daemons() {
    [ -z "$policy_is_ours" ] || as_root rm -f "$policy"
    policy_is_ours=
}
tidy() {
    # A subshell that is ended before it has put these traps off is not to tidy up for all.
    [ "$BASHPID" = $$ ] || return
    unwatch
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

# How long other programs that install packages are waited for, in seconds.
lock_patience=600
# How often it is said that a step is not over, in seconds, where no line can be written over.
news_every=10

# What apt-get does just now, by the last line that says so in its log.
news() {
    sed -n -e 's/^dlstatus:[^:]*:\([0-9]*\)[^:]*:\(.*\)/fetching, \1 %: \2/p' -e 's/^pmstatus:[^:]*:\([0-9]*\)[^:]*:\(.*\)/installing, \1 %: \2/p' \
        -e 's/^waiting: .*/&/p' -e 's/^.*info: \(downloading\|installing\) \(component .*\)/\1 \2/p' "$1" | tail -n 1 | cut -c 1-60
}

# Shows that what writes to log $1 lives, until unwatch.
watch() {
    local log=$1 begun=$SECONDS
    (
        trap - EXIT INT TERM HUP
        while sleep 1 && kill -0 $$ 2>/dev/null; do
            now=$((SECONDS - begun))
            if [ -t 1 ]; then
                printf '\r\033[K    %d s  %s' "$now" "$(news "$log")"
            elif [ $((now % news_every)) = 0 ]; then
                printf '    %d s  %s\n' "$now" "$(news "$log")"
            fi
        done
    ) &
    watcher=$!
}
unwatch() {
    [ -n "$watcher" ] || return 0
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    watcher=
    [ ! -t 1 ] || printf '\r\033[K'
}

work_folder() {
    [ -n "$work" ] || work=$(mktemp -d) || die "no temporary folder."
}

# apt-get with its talk in a file. Another program that installs packages just now is waited for.
apt() {
    local start=$SECONDS status holder log
    # Asks for a password now, if it has to, and not between other lines.
    as_root true || return 1
    log=$work/apt.log
    : >"$log"
    watch "$log"
    while :; do
        # A descriptor of its own for what can be read by programs: apt-get closes it for dpkg, and sudo those that it is given.
        # shellcheck disable=SC2016
        as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive sh -c 'exec apt-get "$@" 3>&1' apt-get -q -y -o DPkg::Lock::Timeout=0 \
            -o Dpkg::Use-Pty=0 -o APT::Status-Fd=3 -o APT::Update::Error-Mode=any "$@" >>"$log" 2>&1 </dev/null
        status=$?
        if [ $status = 0 ] || [ $((SECONDS - start)) -ge $lock_patience ] || ! grep -q '^E: Could not get lock' "$log"; then
            break
        fi
        holder=$(sed -n 's/^E: Could not get lock .* It is held by \(.*\)/\1/p' "$log" | tail -n 1)
        say "waiting: ${holder:-another program} is installing packages" >"$log"
        sleep 2
    done
    unwatch
    return $status
}

# What apt-get and dpkg say went wrong, in one line.
complaint() {
    sed -n -e '/^\(E\|W\|dpkg\): /p' -e 's/^pmerror:\([^:]*\):[^:]*:\(.*\)/\1: \2/p' -e '/^ .*\(returned error exit status\|subprocess\)/s/^ *//p' "$work/apt.log" |
        awk '!seen[$0]++' | head -n 4 | paste -s -d ' ' - | cut -c 1-500
}

# Services of the wanted packages that exist, by unit name.
services() {
    local pattern
    for pattern in $daemons; do
        compgen -G "/lib/systemd/system/$pattern.service" | sed 's|.*/||'
    done
}

# Leaves services disabled, also where systemctl is not there to do it, as in a container.
disable() {
    local service
    if have systemctl; then
        as_root systemctl --quiet disable "$@" >/dev/null 2>&1
        return
    fi
    for service in "$@"; do
        as_root deb-systemd-helper disable "$service" >/dev/null 2>&1
        [ ! -e "/etc/init.d/${service%.service}" ] || as_root update-rc.d "${service%.service}" disable >/dev/null 2>&1
    done
}

# Brings the package lists up to date, once.
refreshed=
unreachable=
refresh() {
    [ -z "$refreshed" ] || return 0
    refreshed=yes
    work_folder
    begin "Fetching the lists of Debian's packages (apt-get update, 10 to 30 MB)"
    if apt update; then
        ended
    else
        unreachable=yes
        say "    apt-get update failed, going on with the lists that are there: $(complaint | cut -c 1-200)" >&2
    fi
}

# How much the packages are, in apt-get's words, such as "166 MB to fetch, 702 MB on disk".
amount() {
    LC_ALL=C apt-get -q -o Debug::NoLocking=1 --assume-no --no-install-recommends install "$@" </dev/null 2>/dev/null |
        sed -n -e 's/^Need to get \(.*\) of archives\./\1 to fetch/p' -e 's/^After this operation, \(.*\) of additional disk space will be used\./\1 on disk/p' |
        paste -s -d , - | sed 's/,/, /'
}

# Installs the packages. False, with a clear line, if that cannot be done.
install() {
    local before now size
    if ! is_debian; then
        say "Missing: $*. This is not Debian: install what your system calls these, then run this again." >&2
        return 1
    fi
    if ! may_be_root; then
        say "Missing: $*. Run 'apt-get update && apt-get install $*' as root, then run this again (or run this as root, or as a user who may use sudo)." >&2
        return 1
    fi
    refresh
    size=$(amount "$@")
    begin "Installing with apt-get${size:+ ($size)}: $*"
    if [ ! -e "$policy" ]; then
        # Asked by every package before it starts its daemon; 101 forbids it.
        policy_is_ours=yes
        if ! printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null || ! as_root chmod 755 "$policy"; then
            die "cannot write $policy."
        fi
    fi
    before=$(services)
    if ! apt install --no-install-recommends "$@"; then
        if grep -qE '^(E: (Failed to fetch|Unable to locate package|Package .* has no installation candidate))' "$work/apt.log"; then
            say "apt-get cannot fetch packages. Connect this machine to a network that reaches Debian's archive (or set http_proxy), then run this again. apt-get says: $(complaint)" >&2
        else
            say "apt-get cannot install $*. Put right what it says, then run this again: $(complaint)" >&2
        fi
        allow_daemons
        return 1
    fi
    ended
    now=$(comm -13 <(sort <<<"$before") <(services | sort))
    if [ -n "$now" ]; then
        # shellcheck disable=SC2086 # one word per service
        disable $now
        # shellcheck disable=SC2116,SC2086
        say "    left disabled: $(echo $now)"
    fi
    allow_daemons
}

# The version of the distribution's package $1, without its revision; empty if there is none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9][0-9.]*\).*/\1/p'; }

# rustup with its talk in a file, of which the errors are shown if it fails.
quietly_rustup() {
    local error
    work_folder
    watch "$work/rustup.log"
    if rustup "$@" >"$work/rustup.log" 2>&1 </dev/null; then
        unwatch
        return
    fi
    unwatch
    error=$(grep -vE '^(info|warning): |^ *$' "$work/rustup.log" | sed 's/^ *//' | paste -s -d ' ' -)
    die "'rustup $*' failed. Is there a network? rustup says: $error"
}

# The ending of the names of the distribution's packages of a Rust that is new enough: "-web" where it is the one that Debian keeps new
# in its stable releases, for web browsers. False if there is none.
rust_ending() {
    if at_least "$(candidate rustc)" "$rust_version"; then
        return
    elif at_least "$(candidate rustc-web)" "$rust_version"; then
        printf '%s' -web
    elif ! may_be_root; then
        # The lists may be old, and newer ones cannot be had: what Debian 12 and 13 have is named.
        printf '%s' -web
    else
        return 1
    fi
}

# The packages of components, where those of Rust end in $1.
component_packages() {
    local ending=$1 component
    shift
    for component in "$@"; do
        case $component in
            clippy) printf '%s\n' "rust$ending-clippy" ;;
            *) printf '%s\n' "$component$ending" ;;
        esac
    done
}

# Does a package of rustup's stand in the way of the distribution's Rust?
has_rustup_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' rustup 2>/dev/null)" = installed ]; }

# Rust, new enough, with the components named: what is on PATH, otherwise the distribution's, otherwise by rustup.
need_rust() {
    local component lacking=() wanted ending
    if ! choose_rust && is_debian && ! has_rustup_package; then
        if may_be_root; then
            [ -z "$rust_old" ] || say "Rust $rust_version or newer is needed, and $rust_old_folder has $rust_old: looking for another."
            refresh
        fi
        if ending=$(rust_ending); then
            mapfile -t wanted < <(component_packages "$ending" rustc cargo "$@")
            # Where root cannot be had one line names all that is missing.
            may_be_root || mapfile -t -O ${#wanted[@]} wanted < <(missing "${needs[@]}")
            install "${wanted[@]}" || exit 1
        elif ! have rustup && [ -n "$(candidate rustup)" ] && may_be_root; then
            install rustup || exit 1
        fi
        hash -r
    fi
    if ! choose_rust && [ -z "$rust_old" ] && have rustup; then
        begin "Installing the stable Rust toolchain with rustup (some 250 MB to fetch)"
        quietly_rustup toolchain install stable --profile minimal
        quietly_rustup default stable
        ended
    fi
    choose_rust || no_rust
    for component in "$@"; do
        case $component in
            rustfmt) have cargo-fmt && cargo fmt --version >/dev/null 2>&1 ;;
            clippy) have cargo-clippy && cargo clippy --version >/dev/null 2>&1 ;;
        esac || lacking+=("$component")
    done
    [ ${#lacking[@]} = 0 ] && return
    if [ -x "$(dirname "$(command -v cargo)")/rustup" ]; then
        begin "Installing with rustup: ${lacking[*]}"
        quietly_rustup component add "${lacking[@]}"
        ended
    else
        ! is_debian || ending=$(rust_ending)
        mapfile -t wanted < <(component_packages "${ending-}" "${lacking[@]}")
        install "${wanted[@]}" || exit 1
    fi
}

# Says what helps where no Rust can be had.
no_rust() {
    local why="Rust $rust_version or newer is needed${rust_old:+, and $rust_old_folder has $rust_old}"
    if have rustup; then
        die "$why. Run 'rustup update stable', then this again."
    elif ! is_debian; then
        die "$why. Install it with your system's packages or from https://rustup.rs, then run this again."
    elif [ -n "$unreachable" ]; then
        die "$why, and no package can be fetched. Connect this machine to a network that reaches Debian's archive (or set http_proxy), then run this again."
    fi
    die "$why, and the sources of apt have none. Debian 12 and 13 have it in their security archive, as rustc-web and cargo-web: add that to the sources of apt, or install Rust from https://rustup.rs. Then run this again."
}

# Python's flup, which Debian has no more, for the tests alone: the wheel whose checksum is written down, in target/.
need_flup() {
    local folder=target/interop/flup log
    [ -e "$folder/flup/server/fcgi.py" ] && return
    begin "Installing with pip, in $folder: flup"
    log=$(mktemp) || die "no temporary folder."
    env PIP_ROOT_USER_ACTION=ignore pip3 --disable-pip-version-check --no-input install --quiet --no-deps --only-binary :all: \
        --require-hashes --target "$folder" -r interop/peers/flup/requirements.txt >"$log" 2>&1 </dev/null || {
        local error
        error=$(tail -n 1 "$log" | cut -c 1-160)
        rm -f "$log"
        die "pip3 cannot install flup (is there a network?): $error"
    }
    rm -f "$log"
    ended
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

case $1 in
    rust | base | build | bench | hosts) need_rust ;;
    test) need_rust rustfmt clippy ;;
esac

mapfile -t packages < <(missing "${needs[@]}")
if [ ${#packages[@]} != 0 ]; then
    install "${packages[@]}" || exit 1
fi
[ "$1" != test ] || need_flup
