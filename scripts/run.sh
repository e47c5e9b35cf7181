#!/bin/bash
# make run: nginx with the module on 127.0.0.1:8888 in front of afcgitest on 127.0.0.1:5000 and the demonstration on 127.0.0.1:5001,
# until Ctrl-C or until its terminal is closed.
#
# Exit status: 0 when asked to stop, 1 when something could not be built or started, or when one of the three died.

set -u
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

web=8888
app=5000
demo=5001
public=http://127.0.0.1:$web/demo/
prefix=$root/nginx/prefix
logs=$prefix/run

free_or_die() {
    local port user
    for port in $web $app $demo; do
        user=$(port_user "$port")
        [ -z "$user" ] || die "port $port of 127.0.0.1 is in use by $user. Stop that, then run this again."
    done
}

free_or_die
need base
begin "Building afcgitest and the demonstration (2 to 4 minutes the first time, on two cores)"
cargo build --release --bin afcgitest --bin afcgi || die "afcgitest and afcgi do not build (see above)."
ended
build_module || die "the nginx module does not build (see above)."
free_or_die
begin "Starting afcgitest, the demonstration and nginx"

# Thousands of clients at a time, as far as this user may.
ulimit -n "$(ulimit -Hn)" 2>/dev/null

nginx=$(nginx_binary)
mkdir -p "$logs" || die "cannot write to $logs."
app_pid=
demo_pid=
web_pid=
asked=
ignores_hangup=$(trap -p HUP)

# Ends what runs, by id, and waits until it is gone. Each is a process group of its own, so that no worker of an nginx that was killed
# is left.
stop() {
    local pid patience
    for pid in $web_pid $demo_pid $app_pid; do
        kill -TERM -- "-$pid" 2>/dev/null
    done
    for pid in $web_pid $demo_pid $app_pid; do
        for ((patience = 100; patience > 0; patience--)); do
            kill -0 -- "-$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$pid" 2>/dev/null && say "process $pid did not stop within 10 s and was killed"
        wait "$pid" 2>/dev/null
    done
    web_pid=
    demo_pid=
    app_pid=
}
trap stop EXIT
trap 'asked=yes' INT TERM HUP

# Has the terminal been closed that this ran in the foreground of? The signal that tells goes to the first process of the terminal, which
# may be a make that waits for this script. It is not for those who do without SIGHUP, as with nohup.
in_front=
terminal_gone() {
    [ -z "$ignores_hangup" ] || return 1
    local line fields
    read -r line <"/proc/$$/stat" || return 1
    # After the name: state, parent, process group, session, terminal, the process group in its foreground.
    read -ra fields <<<"${line##*) }"
    if [ "${fields[4]}" != 0 ]; then
        in_front=
        [ "${fields[2]}" != "${fields[5]}" ] || in_front=yes
        return 1
    fi
    [ -n "$in_front" ]
}

# In process groups of their own, so that Ctrl-C reaches this script only.
set -m
target/release/afcgitest "127.0.0.1:$app" </dev/null >"$logs/afcgitest.log" 2>&1 &
app_pid=$!
target/release/afcgi demo --behind "127.0.0.1:$demo" --public "$public" </dev/null >"$logs/demo.log" 2>&1 &
demo_pid=$!
"$nginx" -p "$prefix" -c conf/nginx.conf -g 'daemon off;' </dev/null >"$logs/nginx.log" 2>&1 &
web_pid=$!
set +m

# Says which of them has died, with the end of its logs, and leaves.
die_of() {
    local name=$1 pid=$2 status log
    wait "$pid" 2>/dev/null
    status=$?
    printf 'run.sh: %s has ended on its own with exit status %s. The end of its log:\n' "$name" "$status" >&2
    shift 2
    for log in "$@"; do
        [ ! -s "$log" ] || tail -n 10 "$log" | sed 's/^/    /' >&2
    done
    exit 1
}

all_alive() {
    kill -0 "$app_pid" 2>/dev/null || die_of afcgitest "$app_pid" "$logs/afcgitest.log"
    kill -0 "$demo_pid" 2>/dev/null || die_of 'afcgi demo' "$demo_pid" "$logs/demo.log"
    kill -0 "$web_pid" 2>/dev/null || die_of nginx "$web_pid" "$logs/nginx.log" "$logs/error.log"
}

# Requests through nginx to both: they are answered only if all three are there.
ready=
for ((patience = 150; patience > 0; patience--)); do
    [ -z "$asked" ] && ! terminal_gone || exit 0
    all_alive
    if curl -sf --noproxy '*' -m 2 -o "$logs/first" "http://127.0.0.1:$web/" && curl -sf --noproxy '*' -m 2 -o "$logs/first" "$public"; then
        ready=yes
        break
    fi
    sleep 0.2
done
[ -n "$ready" ] || die "all programs run, but http://127.0.0.1:$web/ or $public does not answer: see the logs in $logs."
ended

cat <<END

Ready after $SECONDS s: nginx with the module on 127.0.0.1:$web, in front of afcgitest on 127.0.0.1:$app and the demonstration on 127.0.0.1:$demo.
Look, in a browser: a thousand long-lived requests on one connection, live:

  $public

Try, in another terminal:

  curl http://127.0.0.1:$web/
  curl -d 'any text' http://127.0.0.1:$web/echo
  curl http://127.0.0.1:$web/env
  curl -N 'http://127.0.0.1:$web/events?n=5&ms=500'

These hold 200 requests for five seconds, and show meanwhile, from the application and from nginx, how few connections carry them:

  seq 200 | xargs -P 200 -I{} curl -s 'http://127.0.0.1:$web/delay?ms=5000' | sort | uniq -c &
  sleep 2; curl http://127.0.0.1:$web/stats; curl http://127.0.0.1:$web/-/multiplex; wait

Ctrl-C stops all three. Their logs are in ${logs#"$root"/}.
END

while [ -z "$asked" ] && ! terminal_gone; do
    all_alive
    # Not in the background of this shell, so that a signal is heard as soon as it is over.
    sleep 0.2
done
say "Stopping"
