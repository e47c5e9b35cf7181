#!/bin/bash
# make beside: applications that do not multiplex behind plain nginx, behind nginx with the module and behind the gateway, side by side:
# requests a second, and the slowest request (see bench/README.md).
#
#   make beside ROUNDS=3 SECONDS_EACH=4 RECORD=bench/records/DATE-beside.md

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

scripts/install.sh test || exit 1
say "Building the nginx module"
build_module || die "the nginx module does not build (see above)."
say "Building afcgi"
cargo build --release --quiet --locked --bin afcgi || die "it does not build (see above)."

rounds=${ROUNDS:-3}
each=${SECONDS_EACH:-4}
work=$(mktemp -d) || die "no temporary folder."
chmod 755 "$work"
pids=()
tidy() {
    end
    rm -rf "$work"
}
trap tidy EXIT
trap 'exit 130' INT TERM HUP

nginx=$(nginx_binary)
nginx=$(realpath "$nginx")
fpm=$(compgen -G '/usr/sbin/php-fpm*' | sort | tail -n 1)
module=$root/nginx/build/ngx_http_fastcgi_multiplex_module.so

# A port that nobody listens on.
free_port() {
    local port
    for ((port = 21000 + RANDOM % 5000; port < 30000; port++)); do
        [ -n "$(port_user "$port")" ] || { printf '%s' "$port"; return; }
    done
}

# Runs a program beside this one.
beside() {
    "$@" >>"$work/log" 2>&1 </dev/null &
    pids+=($!)
}

# Waits until something listens on port $1.
listens() {
    local n
    for ((n = 0; n < 500; n++)); do
        [ -z "$(port_user "$1")" ] || return 0
        sleep 0.02
    done
    die "nothing listens on port $1: $(tail -n 3 "$work/log")"
}

mkdir -p "$work/www"
cat >"$work/www/index.php" <<'PHP'
<?php
usleep(1000 * (int) ($_GET['ms'] ?? 0));
echo "Hello world\n";
PHP

# The three web servers before the application at port $1: sets port_plain, port_module, port_gateway.
web_servers() {
    local app=$1 kind at
    for kind in plain module; do
        at=$(free_port)
        mkdir -p "$work/$kind"
        cat >"$work/$kind/nginx.conf" <<CONF
load_module $module;
daemon off;
user root;
worker_processes 4;
pid nginx.pid;
error_log error.log error;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body; fastcgi_temp_path fastcgi; proxy_temp_path proxy; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    fastcgi_multiplex $([ $kind = module ] && echo on || echo off);
    server {
        listen 127.0.0.1:$at reuseport backlog=4096;
        root $work/www;
        location / {
            fastcgi_param QUERY_STRING \$query_string;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param CONTENT_LENGTH \$content_length;
            fastcgi_param SCRIPT_NAME \$fastcgi_script_name;
            fastcgi_param SCRIPT_FILENAME \$document_root\$fastcgi_script_name;
            fastcgi_param REQUEST_URI \$request_uri;
            fastcgi_param SERVER_PROTOCOL \$server_protocol;
            fastcgi_pass 127.0.0.1:$app;
        }
    }
}
CONF
        beside "$nginx" -p "$work/$kind" -c nginx.conf -e error.log
        listens "$at"
        printf -v "port_$kind" '%s' "$at"
    done
    port_gateway=$(free_port)
    beside target/release/afcgi gateway "127.0.0.1:$app" --root "$work/www" --listen "127.0.0.1:$port_gateway"
    listens "$port_gateway"
}

# Ends everything that was started since the last time. Some applications ignore SIGTERM while they are idle.
end() {
    local pid n
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do
        for ((n = 0; n < 100; n++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.02
        done
        # One that has a group of its own, with all that is in it.
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    pids=()
}

php() { # NAME SETTINGS: a pool
    local at
    at=$(free_port)
    cat >"$work/fpm.conf" <<CONF
[global]
daemonize = no
error_log = $work/fpm.log
[www]
listen = 127.0.0.1:$at
user = root
group = root
$1
CONF
    beside "$fpm" --nodaemonize --allow-to-run-as-root --fpm-config "$work/fpm.conf"
    listens "$at"
    application=$at
}

spawned() { # PROGRAM…: by spawn-fcgi
    local at
    at=$(free_port)
    beside setsid env PYTHONPATH="$root/target/interop/flup" spawn-fcgi -n -a 127.0.0.1 -p "$at" -- /usr/bin/env "$@"
    listens "$at"
    application=$at
}

lines=()
# measure NAME PATH CLIENTS: rounds of wrk at each web server in turn; a line with the medians.
measure() {
    local name=$1 path=$2 clients=$3 round kind port out rate slowest errors=0
    declare -A rates=() slow=()
    for kind in plain module gateway; do
        port="port_$kind"
        curl -sf "http://127.0.0.1:${!port}$path" >/dev/null || die "$name: $kind does not answer $path."
    done
    for ((round = 0; round < rounds; round++)); do
        for kind in plain module gateway; do
            port="port_$kind"
            out=$(wrk -t 1 -c "$clients" -d "${each}s" --timeout 30s --latency "http://127.0.0.1:${!port}$path")
            rate=$(awk '/^Requests\/sec/ { print $2 }' <<<"$out")
            slowest=$(awk '/^ *Latency  / { print $4; exit }' <<<"$out")
            slowest=$(awk -v t="$slowest" 'BEGIN { n = t + 0; if (t ~ /us$/) n /= 1000; else if (t !~ /ms$/) n *= 1000; printf "%.1f", n }')
            grep -qE 'Non-2xx|Socket errors' <<<"$out" && errors=$((errors + 1))
            rates[$kind]+="$rate "
            slow[$kind]+="$slowest "
        done
    done
    local row="| $name, $clients clients |"
    for kind in plain module gateway; do
        # shellcheck disable=SC2086 # one word a figure
        row+=" $(printf '%s\n' ${rates[$kind]} | sort -n | awk '{ a[NR] = $1 } END { printf "%.0f (%.0f–%.0f)", a[int((NR + 1) / 2)], a[1], a[NR] }') |"
    done
    for kind in plain module gateway; do
        # shellcheck disable=SC2086
        row+=" $(printf '%s\n' ${slow[$kind]} | sort -n | awk '{ a[NR] = $1 } END { printf "%.0f", a[int((NR + 1) / 2)] }') |"
    done
    # The ratio of each round, since the machine is another one in each.
    row+=" $(paste -d ' ' <(tr ' ' '\n' <<<"${rates[plain]}") <(tr ' ' '\n' <<<"${rates[module]}") | awk 'NF == 2 { print $2 / $1 }' | sort -n | awk '{ a[NR] = $1 } END { printf "%.2f", a[int((NR + 1) / 2)] }') |"
    row+=" $errors |"
    say "$row"
    lines+=("$row")
}

libfcgi=$work/libfcgi
cc -O1 -o "$libfcgi" interop/peers/libfcgi/main.c -lfcgi -lpthread || die "libfcgi's program does not build."

for children in 1 2 4; do
    php "pm = static
pm.max_children = $children"
    web_servers "$application"
    measure "PHP-FPM, static, $children" /index.php 8
    [ $children = 1 ] || measure "PHP-FPM, static, $children, 20 ms" '/index.php?ms=20' 32
    end
done
php "pm = dynamic
pm.max_children = 5
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3"
web_servers "$application"
measure "PHP-FPM, Debian's pool" /index.php 8
measure "PHP-FPM, Debian's pool, 20 ms" '/index.php?ms=20' 32
end
for threads in 1 2 8; do
    spawned THREADS=$threads "$libfcgi"
    web_servers "$application"
    measure "libfcgi, $threads" / 8
    end
done
spawned perl interop/peers/perl/app.pl
web_servers "$application"
measure "Perl FCGI, 8" / 8
end
spawned python3 interop/peers/flup/app.py
web_servers "$application"
measure "flup" / 8
end

{
    printf '# %s: beside plain nginx\n\n' "$(date +%F)"
    printf 'Applications that do not multiplex, behind nginx without the module, with it, and behind the gateway: %s rounds of %s s each, in turn,\n' "$rounds" "$each"
    printf 'by wrk on keep-alive connections. 4 nginx workers, %s cores. Medians, with the smallest and the largest; the slowest request is the\n' "$(nproc)"
    printf 'median of the slowest of each round. Errors: measurements with any answer but 200.\n\n'
    printf '| application | plain: requests/s | module | gateway | slowest, ms: plain | module | gateway | module over plain | errors |\n'
    printf '|---|--:|--:|--:|--:|--:|--:|--:|--:|\n'
    printf '%s\n' "${lines[@]}"
} >"$work/record.md"
if [ -n "${RECORD:-}" ]; then
    cp "$work/record.md" "$RECORD"
    say "written to $RECORD"
fi
