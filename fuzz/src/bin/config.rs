//! ghostd's configuration file: an error names the file and, where there is one, a line of it.

#![no_main]

use std::path::Path;

use ghostd::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::parse(text, Path::new("/etc/ghostproc/ghostd.toml")) {
        let said = error.to_string();
        assert!(said.starts_with("/etc/ghostproc/ghostd.toml"), "{said}");
    }
});
