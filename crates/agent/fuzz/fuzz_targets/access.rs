#![no_main]

#[path = "../access.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::access(data));
