#!/usr/bin/env bash
# The fully static program for x86-64 Linux: no shared library, not even libc, so that it runs on every distribution and
# in an empty container. Prints where it is. Needs Rust and a C compiler. With --trained it is built by a profile of itself, as
# releases are; train.sh says what that needs. With --quick it is optimised piece by piece and not as a whole, which takes half the time;
# that is for trying it out, and in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
flags=(
    -C target-feature=+crt-static
    # Relocations take 7 KB instead of 900. A static program relocates itself, so no loader has to know this form.
    -C link-arg=-Wl,-z,pack-relative-relocs
    # Functions that are the same, and of which nobody asks whether they are one, become one.
    -C link-arg=-Wl,--icf=safe
    # A static program cannot ask its libc at run time whether it has getrandom(2); ours has, and needs no /dev.
    '--cfg=getrandom_backend="linux_getrandom"'
)
case "${1:-}" in
    '') ;;
    --quick) export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 ;;
    --trained)
        profile=$(release/train.sh)
        flags+=(-C "profile-use=$profile")
        ;;
    # For train.sh. All else is as in the build that uses the profile, since it tells functions by their names and forms.
    --instrumented) flags+=(-C profile-generate) ;;
    *)
        echo "usage: release/static.sh [--trained|--quick]" >&2
        exit 2
        ;;
esac
printf -v joined '%s\x1f' "${flags[@]}"
export CARGO_ENCODED_RUSTFLAGS="${joined%$'\x1f'}"
cargo build --release --locked --target "$target" --package snicket >&2

program="${CARGO_TARGET_DIR:-target}/$target/release/snicket"
if ldd "$program" >/dev/null 2>&1 && ! ldd "$program" 2>&1 | grep -q 'statically linked'; then
    echo "error: $program needs shared libraries:" >&2
    ldd "$program" >&2
    exit 1
fi
echo "$program"
