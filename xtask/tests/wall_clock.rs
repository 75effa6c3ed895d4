//! No decision is taken by the wall clock, which people and time servers may set to anything at any moment: whoever reads it in a
//! program of the product stands here, with the reason. Everything else goes by CLOCK_BOOTTIME or CLOCK_MONOTONIC.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What reads the wall clock, or says so to the kernel.
const READERS: [&str; 10] = [
    "SystemTime::now",
    "CLOCK_REALTIME",
    "UtcDateTime::now",
    "OffsetDateTime::now",
    "Utc::now",
    "Local::now",
    "gettimeofday",
    "libc::time(",
    "UnixTime::now",
    "TimerFlags::TFD_TIMER_CANCEL_ON_SET",
];

/// The file, how often it may, and why.
const ALLOWED: [(&str, usize, &str); 5] = [
    (
        "crates/ghost-host/src/view/rendering.rs",
        1,
        "times of the view's files: shown, and always later than the one before",
    ),
    ("ghostd/src/driver/nodes.rs", 2, "a certificate's first day (join, renew), a token's last: dates by their nature"),
    ("ghostd/src/driver/mod.rs", 1, "a token's last day"),
    ("ghostd/src/driver/examine.rs", 2, "the doctor compares the clocks, and says when a certificate ends"),
    ("nodeagent/src/link/sampler.rs", 1, "the doctor compares the clocks"),
];

/// The product's programs; tests and tools go by what they like.
const PRODUCT: [&str; 5] = ["crates", "ghostd/src", "nodeagent/src", "cli/src", "ghost-ebpf/src"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|why| panic!("{}: {why}", directory.display())) {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "tests" | "target") {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Lines of a source before its unit tests that read the wall clock.
fn readings(text: &str) -> usize {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    product.lines().filter(|line| READERS.iter().any(|reader| line.contains(reader))).count()
}

#[test]
fn the_wall_clock_decides_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    for part in PRODUCT {
        sources(&root.join(part), &mut files);
    }
    assert!(files.len() > 100, "not all sources were found: {}", files.len());
    let mut seen = BTreeMap::new();
    for file in files {
        let count = readings(&fs::read_to_string(&file).expect("a source"));
        if count > 0 {
            seen.insert(file.strip_prefix(root).expect("below the workspace").display().to_string(), count);
        }
    }
    let allowed: BTreeMap<String, usize> =
        ALLOWED.iter().map(|(file, count, _)| ((*file).to_owned(), *count)).collect();
    assert_eq!(seen, allowed, "who reads the wall clock, and who may: {ALLOWED:#?}");
}

#[test]
fn a_reading_is_seen() {
    for reader in READERS {
        assert_eq!(readings(&format!("fn now() {{\n    {reader}()\n}}\n")), 1);
    }
    assert_eq!(readings("fn f() {}\n#[cfg(test)]\nmod tests {\n SystemTime::now();\n}"), 0);
}
