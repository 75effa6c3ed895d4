//! Times as people write them: `10`, `1.5s`, `200ms`, `2m`, `1h`. A bare number is seconds.

use std::time::Duration;

/// Reads one that is above 0.
///
/// # Errors
/// For people: what is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write a number and a unit: 500ms, 10s, 2m, 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(wrong());
    }
    let seconds = digits.parse::<f64>().map_err(|_| wrong())? * unit;
    // Longer than anything runs, and within what clocks can be asked to add.
    let duration = Duration::try_from_secs_f64(seconds.min(1e10)).map_err(|_| wrong())?;
    if duration.is_zero() { Err("a time is above 0".to_owned()) } else { Ok(duration) }
}

/// A time as in `timed out after 1.5 s`.
pub fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let text = format!("{seconds:.3}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_units() {
        for (text, ms) in
            [("10", 10_000), ("1.5s", 1500), ("200ms", 200), ("2m", 120_000), ("1h", 3_600_000), (".5", 500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "0", "0ms", "-1", "1x", "1e3", "inf", "nan", "1.2.3", "1 s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("9999999999999999999999999d").is_ok());
    }

    #[test]
    fn as_people_read_it() {
        for (ms, text) in [(5000, "5 s"), (1500, "1.5 s"), (20, "0.02 s"), (100_000, "100 s")] {
            assert_eq!(shown(Duration::from_millis(ms)), text);
        }
    }
}
