#!/usr/bin/env bash
# release/check.sh PROGRAM [--any-size]: whether the static program is what the releases promise: no shared library, under 25.2 MB
# stripped, a page by `try`, and, for root, an edge in a directory that holds nothing but the program, as in a container.
set -euo pipefail
program=$(realpath "$1")

# What the README says, with some room. The goal is 15 MB.
most_bytes=25200000
# Nobody; the same number as in the Containerfile.
user=65532

work=$(mktemp -d)
running=
cleanup() {
    [ -z "$running" ] || kill "$running" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

fail() { echo "error: $1" >&2; exit 1; }

# Waits for the first line of JSON in a file and prints it.
ready() {
    for _ in $(seq 300); do
        if [ -s "$1" ] && grep -m1 '"event":"ready"' "$1"; then return; fi
        kill -0 "$running" 2>/dev/null || break
        sleep 0.1
    done
    cat "$1" "$work/stderr" >&2
    fail "$2 is not ready"
}

# The text of a key in a line of JSON.
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

ldd "$program" 2>&1 | grep -qE 'statically linked|not a dynamic executable' || fail "$program needs shared libraries"
strip --strip-all -o "$work/stripped" "$program"
bytes=$(stat -c %s "$work/stripped")
echo "static, $bytes bytes stripped"
[ "${2:-}" = --any-size ] || [ "$bytes" -lt "$most_bytes" ] || fail "it has $bytes bytes stripped; $most_bytes are promised"

export HOME=$work XDG_DATA_HOME=$work XDG_STATE_HOME=$work
"$program" try --json >"$work/try" 2>"$work/stderr" &
running=$!
line=$(ready "$work/try" try)
curl --silent --show-error --fail --cacert "$(value ca <<<"$line")" --output "$work/page" "$(value url <<<"$line")"
[ -s "$work/page" ] || fail "the page is empty"
kill "$running" && wait "$running" || fail "try does not end as it should"
echo "serves over TLS"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$work/root/data"
    cp "$work/stripped" "$work/root/snicket"
    chmod 755 "$work" "$work/root" "$work/root/snicket"
    chown "$user:$user" "$work/root/data"
    inside=(env -i "PATH=$PATH" SNICKET_DATA=/data chroot "--userspec=$user:$user" "$work/root" /snicket)
    "${inside[@]}" up --json --http 0 --https 0 --tunnel 0 --api 0 >"$work/up" 2>"$work/stderr" &
    running=$!
    ready "$work/up" up >/dev/null
    "${inside[@]}" health
    kill "$running" && wait "$running" || fail "up does not end as it should"
    running=
    echo "runs in an empty directory as user $user"
fi
running=
