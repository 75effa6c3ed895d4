//! Requests of the kernel's FUSE.

#![no_main]

use ghost_host::fuse::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Request::parse(data);
});
