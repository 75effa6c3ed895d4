//! The line below the output ([`progress_line`](super::super::progress_line)): there only while nothing else comes.

use super::content::Content;
use super::layout::Channel;
use crate::terminal_line;

#[derive(Debug)]
pub struct Below {
    /// Which outputs are shown where the line is.
    terminals: [bool; 2],
    text: Option<String>,
    /// The last byte shown was not a newline.
    mid_line: bool,
    /// How many pieces have been shown.
    pieces: u64,
}

impl Below {
    pub fn new(terminals: [bool; 2]) -> Below {
        Below { terminals, text: None, mid_line: false, pieces: 0 }
    }

    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Draws the line, or takes it away.
    pub fn draw(&mut self, text: Option<String>) {
        let text = text.filter(|_| !self.mid_line);
        if text != self.text && terminal_line::draw(text.as_deref().unwrap_or_default()) {
            self.text = text;
        }
    }

    /// Something else comes; what is to be written before it.
    #[must_use]
    pub fn comes(&mut self, channel: Channel, content: &Content) -> &'static str {
        if !self.terminals[channel] {
            return "";
        }
        let Some(last) = content.last() else { return "" };
        self.mid_line = last != b'\n';
        self.pieces += 1;
        if self.text.take().is_none() || terminal_line::draw("") { "" } else { terminal_line::ERASED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_is_shown_counts_and_a_line_that_is_broken_off_stays() {
        let mut below = Below::new([false, true]);
        let bytes = |text: &'static [u8]| Content::Here(Bytes::from_static(text));
        assert_eq!(below.comes(0, &bytes(b"into a file")), "");
        assert_eq!((below.pieces(), below.mid_line), (0, false));
        assert_eq!(below.comes(1, &bytes(b"")), "");
        assert_eq!(below.comes(1, &bytes(b"Password: ")), "");
        assert_eq!((below.pieces(), below.mid_line), (1, true));
        below.draw(Some("bpsh: 1 of 2 ended".to_owned()));
        assert_eq!(below.text, None);
        assert_eq!(below.comes(1, &bytes(b"\n")), "");
        assert_eq!((below.pieces(), below.mid_line), (2, false));
    }
}
