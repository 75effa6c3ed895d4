//! What a peer says, fit for a terminal and for a line.

/// Its first characters, at most so many, with a blank for each that would do something.
pub fn harmless(words: &str, most: usize) -> String {
    words.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
