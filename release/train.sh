#!/usr/bin/env bash
# What the static program does most, for the compiler: builds it so that it counts what it runs, lets it be an edge and agents of all
# kinds under load for a minute, and prints where the profile is. One request that fails ends it. `static.sh --trained` uses it.
# Needs what static.sh needs, and nginx, h2load, dnsperf, python3 with venv, and llvm-profdata of the LLVM that is in rustc.
set -euo pipefail
cd "$(dirname "$0")/.."

# Where Debian has nginx.
PATH=$PATH:/usr/sbin

fail() { echo "error: $1" >&2; exit 1; }

# Where the llvm-profdata is that reads and writes the profiles of this rustc: rustup's, or one of its major version.
find_profdata() {
    local major candidate
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for candidate in "$(rustc --print target-libdir)/../bin/llvm-profdata" "llvm-profdata-$major" \
        "/usr/lib/llvm-$major/bin/llvm-profdata" llvm-profdata; do
        case "$("$candidate" --version 2>/dev/null)" in
            *"LLVM version $major."*) echo "$candidate" && return ;;
        esac
    done
    fail "llvm-profdata of LLVM $major, which is rustc's, is not installed; rustup component add llvm-tools"
}

# Before the build, which takes minutes.
profdata=$(find_profdata)
for needed in nginx:nginx h2load:nghttp2-client dnsperf:dnsperf; do
    command -v "${needed%:*}" >/dev/null || fail "${needed%:*} is not installed; apt install ${needed#*:}"
done

work=$(mktemp -d)
declare -A running
cleanup() {
    [ "${#running[@]}" = 0 ] || kill "${!running[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check --requirement release/requirements.txt >&2

built=$(release/static.sh --instrumented)
folder=$(realpath "$(dirname "$built")")

# Moved, so that nobody takes it for the static program.
program=$work/snicket
mv "$built" "$program"
mkdir "$work/home" "$work/www" "$work/logs" "$work/profiles"
export HOME=$work/home XDG_STATE_HOME=$work/home SNICKET_DATA=$work/home/edge LLVM_PROFILE_FILE=$work/profiles/%p.profraw

# start NAME COMMAND...: the command's process is $started, and what it writes is in the file of that name.
start() {
    "${@:2}" >"$work/logs/$1" 2>&1 &
    started=$!
    running[$started]=$1
}

# ready COMMAND...: waits until the command says that what was started last is ready.
ready() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        kill -0 "$started" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/logs/${running[$started]}" >&2
    fail "${running[$started]} is not ready"
}

# A profile is written where a program ends as it should.
stop() {
    local name=${running[$1]}
    kill "$1"
    unset "running[$1]"
    wait "$1" || fail "$name does not end as it should"
    [ -s "$work/profiles/$1.profraw" ] || fail "$name has left no profile"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

# agent KIND ORIGIN TRANSPORT: shares the origin at $port of the edge.
agent() {
    local name=$1-$3
    start "$name" "$program" "$1" "$2" --name "$name" --protocol "$3"
    # The first of what it says ends in the port.
    local says='^[a-z].*:[0-9]*$'
    ready grep -q "$says" "$work/logs/$name"
    port=$(grep -m1 "$says" "$work/logs/$name")
    port=${port##*:}
}

# ask COUNT ARGUMENTS...: requests, all of which must succeed.
ask() {
    h2load --threads 1 --requests "$1" "${@:2}" >"$work/logs/h2load" 2>&1 || true
    if ! grep -q "^status codes: $1 2xx, 0 3xx, 0 4xx, 0 5xx" "$work/logs/h2load"; then
        cat "$work/logs/h2load" >&2
        fail "not all requests have succeeded: h2load --requests $*"
    fi
}

# visits ARGUMENTS...: what visits.py can do, all of which must succeed.
visits() {
    if ! "$work/python/bin/python" release/visits.py "$@" >"$work/logs/visits" 2>&1; then
        cat "$work/logs/visits" >&2
        fail "not all visits have succeeded: visits.py $*"
    fi
}

# resolve FILE PORT ARGUMENTS...: the questions in a file, none of which may be lost.
resolve() {
    dnsperf -s 127.0.0.1 -p "$2" -d "$work/$1" -n 1 "${@:3}" >"$work/logs/dnsperf" 2>&1 || true
    if ! grep -q '^  Queries completed: .*(100.00%)' "$work/logs/dnsperf"; then
        cat "$work/logs/dnsperf" >&2
        fail "not all questions have been answered: dnsperf -d $1 ${*:3}"
    fi
}

# free_port NAME: sets the variable of that name to a port where nobody listens.
free_port() {
    local port
    while port=$((10000 + RANDOM % 10000)) && listens "$port" 2>/dev/null; do :; done
    declare -g "$1=$port"
}

# The origin: files, uploads that are read whole, and WebSockets that say what they hear.
free_port echo
start echo "$work/python/bin/python" release/visits.py echo "$echo"
ready listens "$echo"
free_port origin
for size in 1000 100000 1000000 10000000; do head -c "$size" /dev/urandom >"$work/www/$size"; done
cat >"$work/nginx.conf" <<EOF
daemon off; master_process off; pid nginx.pid; error_log nginx.err;
events { worker_connections 1000; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen 127.0.0.1:$origin; root www;
    location /upload { client_max_body_size 0; client_body_buffer_size 2m; proxy_pass http://unix:$work/sink:/; }
    location /echo { proxy_pass http://127.0.0.1:$echo; proxy_http_version 1.1;
      proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; } }
  server { listen unix:$work/sink; client_max_body_size 0; location / { return 204; } }
}
EOF
start nginx nginx -p "$work" -e nginx.err -c nginx.conf
ready listens "$origin"

# Not --json, under which each request is told in another way.
start edge "$program" up --http 0 --https 0 --tunnel 0 --api 0 --dns 127.0.0.1:0
edge=$started
ready "$program" status
addresses=$("$program" status --json)
dns=$(sed -n 's/.*"dns":"[^"]*:\([0-9]*\)".*/\1/p' <<<"$addresses")
https=$(sed -n 's/.*"https":"[^"]*:\([0-9]*\)".*/\1/p' <<<"$addresses")

echo "training: DNS" >&2
for zone in plain signed; do
    {
        echo "\$TTL 300"
        seq -f 'n%.0f IN A 192.0.2.1' 10000
    } >"$work/zone"
    "$program" dns create "$zone.test" >/dev/null
    "$program" dns import "$zone.test" "$work/zone" >/dev/null
    seq -f "n%.0f.$zone.test A" 10000 | shuf >"$work/$zone"
done
"$program" dns dnssec signed.test on >/dev/null
seq -f 'x%.0f.plain.test A' 10000 >"$work/absent"
for _ in 1 2 3; do
    resolve plain "$dns"
    resolve absent "$dns"
    resolve signed "$dns" -D
done

for transport in http2 quic; do
    echo "training: HTTP over $transport" >&2
    agent http "$origin" "$transport"
    host=http-$transport.localhost
    site=https://$host
    to=(--connect-to "127.0.0.1:$https")
    ask 20000 "${to[@]}" --h1 --clients 50 "$site/1000"
    ask 20000 "${to[@]}" --clients 10 --max-concurrent-streams 5 "$site/1000"
    ask 2000 "${to[@]}" --h1 --clients 10 "$site/100000"
    ask 60 "${to[@]}" --h1 --clients 4 "$site/10000000"
    ask 20 "${to[@]}" --clients 4 "$site/10000000"
    ask 200 "${to[@]}" --h1 --clients 8 --data "$work/www/1000000" "$site/upload"
    ask 100 "${to[@]}" --clients 8 --data "$work/www/1000000" "$site/upload"
    visits http3 "$https" "$host" /1000 10 500
    visits http3 "$https" "$host" /1000000 4 5
    visits http3 "$https" "$host" /upload 4 5 1000000
    visits websocket "$https" "$host" /echo 20 200 100
    visits websocket "$https" "$host" /echo 4 20 100000
    # A handshake for each.
    for _ in $(seq 15); do ask 20 "${to[@]}" --h1 --clients 20 "$site/1000"; done
    stop "$started"

    echo "training: TCP and UDP over $transport" >&2
    agent tcp "$origin" "$transport"
    ask 100 --h1 --clients 1 "http://127.0.0.1:$port/10000000"
    ask 200 --h1 --clients 8 --data "$work/www/1000000" "http://127.0.0.1:$port/upload"
    stop "$started"
    agent udp "$dns" "$transport"
    resolve plain "$port" -q 10
    stop "$started"
done
stop "$edge"

"$profdata" merge -o "$work/profile" "$work"/profiles/*.profraw
# Named by what is in it: cargo looks whether the flags of a library are others, not whether a file that they name is.
profile=$folder/$(sha256sum <"$work/profile" | cut -c 1-16).profdata
mv "$work/profile" "$profile"
echo "$profile"
