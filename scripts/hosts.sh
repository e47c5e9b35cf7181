#!/bin/bash
# make hosts: nginx with the module before an application on each of three hosts, one of which is cut off and comes back.
#
# The hosts are network namespaces on a bridge in one of their own, where nginx and its clients are: nothing is seen of it on the
# machine's interfaces. It needs root, takes less than a minute, and removes what it has made however it ends.
#
# Exit status: 0 when all is as it should be, 1 when something is not, or cannot be tried here.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

hosts=3
polls=300
cut=2
# Seconds within which the loss of a host is noticed, as the settings of the kernel below have it, with some allowance.
notice=8
# Seconds within which a host that is back is used again.
return=12
prefix=afcgi-$$
web=$prefix-web
network=10.203.0

[ "$(id -u)" = 0 ] || die "network namespaces need root: run this as root."
need hosts
begin "Building afcgitest"
cargo build --release --quiet --locked --bin afcgitest || die "afcgitest does not build (see above)."
ended
build_module || die "the nginx module does not build (see above)."
nginx=$(realpath "$(nginx_binary)")
work=$(mktemp -d) || die "no temporary folder."

pids=()
made=()
# Ends what runs, by id: each is a process group of its own.
tidy() {
    trap '' INT TERM HUP
    local pid name patience
    for pid in "${pids[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null
    done
    for ((patience = 30; patience > 0; patience--)); do
        for pid in "${pids[@]}"; do
            kill -0 -- "-$pid" 2>/dev/null && break
        done || break
        sleep 0.1
    done
    for pid in "${pids[@]}"; do
        kill -KILL -- "-$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    for name in "${made[@]}"; do
        ip netns del "$name"
    done
    rm -rf "$work"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

failed=0
# check WHAT COMMAND…: says whether it is as it should be.
check() {
    local what=$1
    shift
    if "$@"; then
        say "  ok      $what"
    else
        say "  WRONG   $what"
        failed=1
    fi
}

host() { printf '%s-%s' "$prefix" "$1"; }
address() { printf '%s.%s' "$network" "$((10 + $1))"; }
inside() { ip netns exec "$@"; }
# Runs a command in a namespace, in the background.
start() {
    local log=$2
    set -m
    inside "$1" "${@:3}" </dev/null >"$log" 2>&1 &
    pids+=("$!")
    set +m
}

namespace() {
    local error
    error=$(ip netns add "$1" 2>&1) || die "no network namespace can be made here: $error"
    made+=("$1")
    ip -n "$1" link set lo up || die "$1 has no loopback."
}

build_network() {
    local i error
    namespace "$web"
    for ((i = 1; i <= hosts; i++)); do
        namespace "$(host "$i")"
    done
    error=$({
        ip -n "$web" link add bridge type bridge &&
            ip -n "$web" address add "$network.1/24" dev bridge &&
            ip -n "$web" link set bridge up &&
            for ((i = 1; i <= hosts; i++)); do
                ip -n "$web" link add "host$i" type veth peer name eth0 netns "$(host "$i")" &&
                    ip -n "$web" link set "host$i" master bridge up &&
                    ip -n "$(host "$i")" address add "$(address "$i")/24" dev eth0 &&
                    ip -n "$(host "$i")" link set eth0 up || break
            done
    } 2>&1) || die "the network cannot be made: $error"
    # A host that is gone without a word is noticed by nobody but the kernel: after 2 s of silence and two probes, or after three
    # repetitions of what is not acknowledged.
    error=$(inside "$web" sh -c 'cd /proc/sys/net/ipv4 && echo 2 >tcp_keepalive_time && echo 1 >tcp_keepalive_intvl &&
        echo 2 >tcp_keepalive_probes && echo 3 >tcp_retries2' 2>&1) || die "the kernel's settings cannot be changed: $error"
}

configuration() {
    local i
    cat <<END
load_module $root/nginx/build/ngx_http_fastcgi_multiplex_module.so;
user root;
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log stderr notice;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path $work/client_body_temp;
    fastcgi_temp_path $work/fastcgi_temp;
    proxy_temp_path $work/proxy_temp;
    uwsgi_temp_path $work/uwsgi_temp;
    scgi_temp_path $work/scgi_temp;
    include $root/nginx/prefix/conf/fastcgi.conf;
    fastcgi_connect_timeout 1s;
    fastcgi_socket_keepalive on;
    add_header X-Host \$upstream_addr;
    upstream application {
        least_conn;
$(for ((i = 1; i <= hosts; i++)); do printf '        server %s:5000 max_fails=1 fail_timeout=3s;\n' "$(address "$i")"; done)
        fastcgi_multiplex;
    }
$(for ((i = 1; i <= hosts; i++)); do printf '    upstream host%s { server %s:5000; fastcgi_multiplex; }\n' "$i" "$(address "$i")"; done)
    server {
        listen 127.0.0.1:8080 backlog=1024;
        location / { fastcgi_pass application; }
$(for ((i = 1; i <= hosts; i++)); do printf '        location = /stats/%s { include %s/nginx/prefix/conf/fastcgi.conf; fastcgi_param SCRIPT_NAME /stats; fastcgi_pass host%s; }\n' "$i" "$root" "$i"; done)
    }
}
END
}

url=http://127.0.0.1:8080
get() { inside "$web" curl -sf -m "${2:-3}" --noproxy '*' "$url$1"; }
# The number $2 in the /stats of host $1. It is asked over the connection that requests share.
stat_of() { get "/stats/$1" | sed -n "s/.*\"$2\":\([0-9]*\).*/\1/p"; }

# One request, as a line in $work/fast: when it began, its status, the hosts that were asked, the seconds it took.
fast() {
    local began=$EPOCHREALTIME
    printf '%s %s\n' "$began" "$(inside "$web" curl -s -m 20 --noproxy '*' -o "$work/null" -w '%{http_code} %{time_total} %header{x-host}' "$url/")" >>"$work/fast"
}

# 300 requests that are answered after 8 to 14 s, as a line each in $work/polls.
hold() {
    local i
    for ((i = 0; i < polls; i++)); do
        printf 'url = "%s/delay?ms=%s"\noutput = "/dev/null"\n' "$url" "$((8000 + i % 61 * 100))"
    done >"$work/urls"
    start "$web" "$work/polls" curl -s -Z --parallel-immediate --parallel-max "$polls" -m 60 --stderr "$work/curl.log" --noproxy '*' -K "$work/urls" \
        -w '%{http_code} %{time_total} %header{x-host}\n'
    holder=$!
}

# seconds FROM TO, of EPOCHREALTIME, with one decimal.
seconds() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.1f", to - from }'; }

wait_for() {
    local patience what=$1
    shift
    for ((patience = 100; patience > 0; patience--)); do
        "$@" && return
        sleep 0.1
    done
    die "$what (nginx says: $(tail -n 3 "$work/nginx.log" | tr '\n' ' '))"
}

all_answer() {
    local i
    for ((i = 1; i <= hosts; i++)); do
        get "/stats/$i" >"$work/first" 2>&1 || return
    done
}

held() {
    local i sum=0 active
    actives=()
    for ((i = 1; i <= hosts; i++)); do
        active=$(stat_of "$i" active)
        # Without the one that asks.
        actives+=("$((${active:-1} - 1))")
        sum=$((sum + actives[-1]))
    done
    [ "$sum" = "$polls" ]
}

is_even() {
    local active
    for active in "${actives[@]}"; do
        ((active >= polls / hosts - 5 && active <= polls / hosts + 5)) || return
    done
}

one_connection_each() {
    local count
    for count in "${connections[@]}"; do
        [ "$count" = 1 ] || return
    done
}

# Whether $1 is at most $2.
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }

say "Making $hosts hosts: $(for ((i = 1; i <= hosts; i++)); do printf '%s ' "$(address "$i")"; done)and $network.1 with nginx"
build_network
for ((i = 1; i <= hosts; i++)); do
    start "$(host "$i")" "$work/afcgitest$i.log" target/release/afcgitest "$(address "$i"):5000"
done
configuration >"$work/nginx.conf"
start "$web" "$work/nginx.log" "$nginx" -p "$work" -e stderr -c "$work/nginx.conf"
wait_for "nginx and the applications do not answer" all_answer

say "Holding $polls requests"
hold
wait_for "the applications do not have the $polls requests" held
connections=()
for ((i = 1; i <= hosts; i++)); do
    connections+=("$(stat_of "$i" connections)")
done
check "least_conn has spread them: ${actives[*]}" is_even
check "connections to the hosts: ${connections[*]}" one_connection_each

say "Cutting off host $cut"
ip -n "$web" link set "host$cut" down || die "the link of host $cut cannot be cut."
cut_at=$EPOCHREALTIME
# One request every 100 ms, whatever becomes of those before.
probes=()
for ((i = 0; i < 100; i++)); do
    fast &
    probes+=("$!")
    sleep 0.1
done
wait "${probes[@]}"
summary=$(awk -v cut_at="$cut_at" -v gone="$(address "$cut"):5000" -v notice="$notice" '
    { took = $3; if (took > most) most = took; if ($2 != 200) bad++
      if (index($0, gone)) hit++
      # Later ones may be the one that tries whether the host is back.
      if ($1 - cut_at > notice && took > late) late = took }
    END { printf "%d %d %d %.1f %.3f", NR, bad, hit, most, late }' "$work/fast")
read -r count bad hit most late <<<"$summary"
check "$count new requests in the 10 s after that, $bad of them failed" [ "$bad" = 0 ]
check "$hit of them met host $cut first; the longest took $most s (at most $notice)" at_most "$most" "$notice"
check "from $notice s on the longest took $late s (at most 1.5)" at_most "$late" 1.5

say "Bringing host $cut back"
ip -n "$web" link set "host$cut" up || die "the link of host $cut cannot be brought back."
back_at=$EPOCHREALTIME
again=
while at_most "$(seconds "$back_at" "$EPOCHREALTIME")" "$return"; do
    : >"$work/fast"
    fast
    # Answered by that host, and by no other.
    if grep -q " 200 [0-9.]* $(address "$cut"):5000\$" "$work/fast"; then
        again=$(seconds "$back_at" "$EPOCHREALTIME")
        break
    fi
    sleep 0.1
done
check "it is used again after ${again:-more than $return} s" [ -n "$again" ]

say "Waiting for the requests that were held"
for ((patience = 300; patience > 0; patience--)); do
    kill -0 "$holder" 2>/dev/null || break
    sleep 0.1
done
summary=$(awk -v gone="$(address "$cut"):5000" '
    { all++; ok = $1 == 200
      if (index($0, gone)) { met++; if (!ok) lost++; if ($2 > most) most = $2 } else if (!ok) bad++ }
    END { printf "%d %d %d %d %.1f", all, bad, met, lost, most }' "$work/polls")
read -r count bad met lost most <<<"$summary"
check "all $polls are done: $count" [ "$count" = "$polls" ]
check "of those on the other hosts $bad failed" [ "$bad" = 0 ]
check "$met were on host $cut: $lost failed, the others were answered by another host, after $most s at most" [ "$lost" = 0 ]

if [ "$failed" != 0 ]; then
    say "The end of nginx's log:"
    tail -n 10 "$work/nginx.log" | cut -c 1-300 | sed 's/^/    /'
    die "not all is as it should be (see above)."
fi
say "All is as it should be, in $SECONDS s"
