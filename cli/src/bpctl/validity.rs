//! How long something is valid, as people write it: `90s`, `30m`, `12h`, `7d`; a bare number is seconds.

use std::time::Duration;

/// Reads it.
///
/// # Errors
/// For people: what is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit = match text.bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => 0,
    };
    let (digits, unit) = if unit == 0 { (text, 1) } else { (&text[..text.len() - 1], unit) };
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    match number.and_then(|number| number.checked_mul(unit)) {
        Some(0) => Err("a token must be valid for a second or more".to_owned()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("write a number and a unit: 90s, 30m, 12h, 7d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "s",
            "0",
            "0d",
            "-1s",
            "+1s",
            "1w",
            "1.5h",
            "1 h",
            "é",
            "1é",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
