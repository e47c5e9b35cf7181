#!/bin/bash
# Builds the module: nginx/build/ngx_http_fastcgi_multiplex_module.so
#
# Usage: nginx/build.sh [--vendored | --faults]
#
# Without an option the module is for the nginx of the distribution, whose headers are in the package nginx-dev. With --vendored it is
# for the nginx whose source comes with the Rust crate nginx-src, and that nginx is built too: nginx/build/nginx. A module works with
# the version that it was built for, and with no other.
#
# The configured sources are kept in nginx/build, so that a second run is quick.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$here/build
module=ngx_http_fastcgi_multiplex_module.so
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

say() { printf '%s\n' "$*"; }
die() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

# Runs a command with its output in a file, the end of which is shown if it fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        die "failed: $* (all of it: $log)"
    }
}

# Does a program compile that includes header $1 and is linked with library $2?
has_library() {
    printf '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <%s>\nint main(void) { return 0; }\n' "$1" |
        ${CC:-cc} -x c - -o /dev/null "-l$2" 2>/dev/null
}

# The version that the sources in folder $1 are of.
version_of() { sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$1/src/core/nginx.h"; }

# Debian's: headers and a configure script, without the sources.
distribution() {
    local from=${NGINX_DEV:-/usr/share/nginx/src} binary version
    [ -f "$from/conf_flags" ] || die "no headers of nginx in $from: install nginx-dev, or use --vendored."
    binary=$(PATH=$PATH:/usr/sbin command -v nginx) || die "there is no nginx: install it, or use --vendored."
    version=$(version_of "$from")
    [ "nginx/$version" = "$("$binary" -v 2>&1 | sed 's/^nginx version: \([^ ]*\).*/\1/')" ] ||
        die "the headers in $from are of nginx $version, $binary is another version."
    source_dir=$out/distribution-$version
    build_dir=$source_dir/objs
    # What nginx checks when it loads a module is in its signature: another build of the same version needs another configuration.
    local stamp=$source_dir/stamp
    if ! { cat "$from/conf_flags"; "$binary" -V 2>&1; } | cmp -s - "$stamp"; then
        say "Configuring for nginx $version ($binary)"
        rm -rf "$source_dir"
        mkdir -p "$out"
        cp -RL "$from" "$source_dir"
        (
            cd "$source_dir"
            # shellcheck disable=SC1091
            . ./conf_flags
            quietly "$source_dir/configure.log" bash ./configure "${NGX_CONF_FLAGS[@]}"
        )
        { cat "$from/conf_flags"; "$binary" -V 2>&1; } >"$stamp"
    fi
    rm -f "$out/nginx"
    made_for="nginx $version, $binary"
}

# The one from the crate nginx-src, built here.
vendored() {
    local crate version flags
    crate=$(cd "$here" && cargo metadata --locked --format-version 1 --features vendored --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" |
        grep -o '"manifest_path":"[^"]*/nginx-src-[^"/]*/Cargo.toml"' | head -n 1 | cut -d '"' -f 4)
    [ -n "$crate" ] || die "the crate nginx-src cannot be had."
    crate=$(dirname "$crate")/nginx
    version=$(version_of "$crate")
    flags=(--error-log-path=stderr --with-compat --with-debug --with-threads --with-http_v2_module --with-http_realip_module --with-http_auth_request_module)
    if has_library openssl/ssl.h ssl; then flags+=(--with-http_ssl_module); fi
    has_library pcre2.h pcre2-8 || flags+=(--without-http_rewrite_module)
    has_library zlib.h z || flags+=(--without-http_gzip_module)
    source_dir=$out/vendored-$version
    build_dir=$source_dir/objs
    if [ "$(cat "$source_dir/stamp" 2>/dev/null)" != "${flags[*]}" ]; then
        say "Building nginx $version"
        rm -rf "$source_dir"
        mkdir -p "$out"
        cp -RL "$crate" "$source_dir"
        chmod -R u+w "$source_dir"
        (
            cd "$source_dir"
            quietly "$source_dir/configure.log" sh ./auto/configure "${flags[@]}"
            quietly "$source_dir/make.log" make -j"$jobs"
        )
        printf '%s\n' "${flags[*]}" >"$source_dir/stamp"
    fi
    cp -f "$build_dir/nginx" "$out/nginx.new"
    mv -f "$out/nginx.new" "$out/nginx"
    made_for="nginx $version, $out/nginx"
}

command -v cargo >/dev/null || die "there is no cargo."
case ${1-} in
    '') distribution ;;
    --vendored) vendored ;;
    --faults) if [ -e "$out/nginx" ]; then vendored; else distribution; fi ;;
    *) die "usage: nginx/build.sh [--vendored | --faults]" ;;
esac
features=()
file=$module
if [ "${1-}" = --faults ]; then
    features=(--features faults)
    file=faults.so
fi

# A target folder for each nginx: neither makes the other be built again.
export NGINX_SOURCE_DIR=$source_dir NGINX_BUILD_DIR=$build_dir CARGO_TARGET_DIR=$source_dir/target
(cd "$here" && cargo build --release --package afcgi-nginx "${features[@]}") || die "the module does not build (see above)."
# A running nginx goes on with the file that it has loaded.
cp -f "$CARGO_TARGET_DIR/release/lib$module" "$out/$file.new"
mv -f "$out/$file.new" "$out/$file"
say "nginx/build/$file is for $made_for"
