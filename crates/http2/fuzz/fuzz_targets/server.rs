#![no_main]

#[path = "../body.rs"]
#[expect(dead_code, reason = "each target uses one of the two")]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::server(data));
