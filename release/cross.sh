#!/usr/bin/env bash
# release/cross.sh arm64|armv7: the static program for other processors, by zig as C compiler and linker. Untested: it
# was written where neither the target's standard library nor such a machine could be had.
#
# Needs: rustup target add TARGET; cargo install --locked cargo-zigbuild; pip install ziglang
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    arm64) target=aarch64-unknown-linux-musl ;;
    armv7) target=armv7-unknown-linux-musleabihf ;;
    *) echo "usage: release/cross.sh arm64|armv7" >&2; exit 2 ;;
esac
cargo zigbuild --release --locked --target "$target" --package snicket >&2
echo "${CARGO_TARGET_DIR:-target}/$target/release/snicket"
