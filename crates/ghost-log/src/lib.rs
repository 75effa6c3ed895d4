//! Where the daemons' log goes: to the journal with its fields when systemd has started them, else to standard error.
//!
//! systemd.exec(5) tells a service by `JOURNAL_STREAM=DEVICE:INODE` that its standard error is the journal. The variable is
//! inherited, so it counts only if standard error still is that very stream.
//!
//! A line that cannot be written (a full disk) is lost, and nothing else: the daemon goes on. One that comes too often is left out
//! ([`limit`]).

pub mod journal;
pub mod limit;

use std::io::IsTerminal;
use std::sync::OnceLock;

use nix::sys::stat::fstat;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Says what is logged, before the configuration: `debug`, `info,ghostd::membership=trace`.
pub const ENVIRONMENT: &str = "GHOSTPROC_LOG";

/// What is let through, once it has begun.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("`{text}` does not say what is to be logged; write for example `info` or `info,ghostd=debug`: {source}")]
    Filter { text: String, source: ParseError },
    #[error("`{0}` is no level; write error, warn, info, debug or trace, or a part with its level: ghostd=debug")]
    Level(String),
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
    #[error("the log is not set up")]
    NotStarted,
    #[error("{ENVIRONMENT} says what is logged, and goes before the configuration")]
    Environment,
}

/// Begins to log what `filter` (in the form of [`ENVIRONMENT`], which goes before it) lets through.
///
/// # Errors
/// The filter cannot be read, or this is the second call.
pub fn start(filter: &str) -> Result<(), LogError> {
    let text = from_environment().unwrap_or_else(|| filter.to_owned());
    let (filter, handle) = reload::Layer::new(read(text)?);
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry().with(filter).with(limit::Limit::default());
    if journal_is_stderr()
        && let Ok(journal) = journal::Journal::new(journal::SOCKET)
    {
        registry.with(journal).try_init()?;
    } else {
        let text = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            // They would go to standard error as well, by a macro that panics when that fails.
            .log_internal_errors(false);
        registry.with(text).try_init()?;
    }
    Ok(())
}

/// Whether a filter can be read.
///
/// # Errors
/// It cannot.
pub fn check(filter: &str) -> Result<(), LogError> {
    read(filter.to_owned()).map(drop)
}

/// Logs from now on what `filter` lets through.
///
/// # Errors
/// The filter cannot be read, the environment says something else, or [`start`] was not called.
pub fn change(filter: &str) -> Result<(), LogError> {
    if from_environment().is_some() {
        return Err(LogError::Environment);
    }
    let filter = read(filter.to_owned())?;
    FILTER.get().and_then(|handle| handle.reload(filter).ok()).ok_or(LogError::NotStarted)
}

fn from_environment() -> Option<String> {
    std::env::var(ENVIRONMENT).ok().filter(|text| !text.is_empty())
}

fn read(text: String) -> Result<EnvFilter, LogError> {
    // tracing takes a word alone for the name of a part: a misspelt level would silence all others.
    let alone = |word: &&str| !word.is_empty() && !word.contains(['=', '[', '{']);
    if let Some(word) = text.split(',').map(str::trim).filter(alone).find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(LogError::Level(word.to_owned()));
    }
    EnvFilter::try_new(&text).map_err(|source| LogError::Filter { text, source })
}

fn journal_is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(std::io::stderr()).is_ok_and(|stat| names(&stream, stat.st_dev, stat.st_ino))
}

/// Whether `JOURNAL_STREAM`'s text is about this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_device_and_inode() {
        assert!(names("8:12345", 8, 12_345));
        for other in ["8:12346", "9:12345", "8", "", ":", "8:12345:1", "x:12345"] {
            assert!(!names(other, 8, 12_345), "{other}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_part() {
        for good in ["info", "WARN", "off", "info,ghostd::membership=trace", "ghostd=debug,nodeagent=off", ""] {
            assert!(check(good).is_ok(), "{good}");
        }
        for (bad, word) in [("loud", "loud"), ("info,debgu", "debgu"), ("ghostd", "ghostd")] {
            let error = check(bad).expect_err(bad).to_string();
            assert!(error.starts_with(&format!("`{word}` is no level")), "{error}");
        }
    }

    #[test]
    fn an_unreadable_filter_is_named() {
        let error = start("info,=,=").expect_err("nonsense was taken").to_string();
        assert!(error.contains("info,=,="), "{error}");
        start("info").expect("the first start");
        assert!(matches!(start("info"), Err(LogError::Twice(_))));
    }
}
