//! Join tokens: what is taken is a token, blanks aside, letter by letter.

#![no_main]

use ghost_trust::Token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string(), text.trim());
    }
});
