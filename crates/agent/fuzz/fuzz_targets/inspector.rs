#![no_main]

#[path = "../inspector.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::inspector(data));
