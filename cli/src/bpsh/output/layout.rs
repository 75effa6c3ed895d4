//! How output looks: whole lines, prefixes, dividers. Pure: pieces of streams go in, pieces of two outputs come out.
//!
//! Invariants: without a style that asks for it no byte is changed, added or held back. With one, bytes are added only at the
//! beginning of a line; a line that is broken off because another rank writes is ended first.

use bytes::{Bytes, BytesMut};

use super::super::flags::{Prefix, Style};
use super::content::Content;

/// One of the two outputs: index 0 is standard output, 1 standard error.
pub type Channel = usize;

/// Bytes for an output.
#[derive(Clone, Debug)]
pub struct Piece {
    pub channel: Channel,
    pub content: Content,
    /// Whose stream gets how many bytes acknowledged when this piece has been written.
    pub credit: Option<Credit>,
}

/// Bytes of a rank's stream that are done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    pub rank: usize,
    pub channel: Channel,
    pub bytes: usize,
}

#[derive(Debug, Default)]
struct Screen {
    /// Who wrote last.
    last: Option<usize>,
    /// The last byte was not a newline.
    mid_line: bool,
}

/// Dashes of a divider.
const DASHES: usize = 69;

#[derive(Debug)]
pub struct Layout {
    style: Style,
    /// Node of each rank.
    nodes: Vec<i32>,
    screens: [Screen; 2],
    /// Beginnings of lines whose end has not come yet, by rank.
    partial: Vec<[BytesMut; 2]>,
}

impl Layout {
    pub fn new(style: Style, nodes: Vec<i32>) -> Layout {
        let partial = nodes.iter().map(|_| [BytesMut::new(), BytesMut::new()]).collect();
        Layout { style, nodes, screens: Default::default(), partial }
    }

    /// Whether the style leaves every byte where it is: content goes to [`Layout::pass`].
    pub fn is_plain(&self) -> bool {
        self.style.lines.is_none() && !self.style.divider
    }

    /// Takes a piece of a rank's stream that is not looked at.
    pub fn pass(&mut self, rank: usize, channel: Channel, content: Content, out: &mut Vec<Piece>) {
        if !content.is_empty() {
            let credit = Some(Credit { rank, channel, bytes: content.len() });
            out.push(Piece { channel, content, credit });
        }
    }

    /// Takes a piece of a rank's stream; `credited` says that it has been acknowledged already.
    pub fn push(&mut self, rank: usize, channel: Channel, bytes: Bytes, credited: bool, out: &mut Vec<Piece>) {
        let credit = |bytes: usize| (!credited && bytes > 0).then_some(Credit { rank, channel, bytes });
        let Some(limit) = self.style.lines else {
            let due = credit(bytes.len());
            self.emit(rank, channel, bytes, due, out);
            return;
        };
        let Some(partial) = self.partial.get_mut(rank).map(|channels| &mut channels[channel]) else { return };
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let (head, tail) = (bytes.slice(..end), bytes.slice(end..));
        let begun = if end > 0 { partial.split().freeze() } else { Bytes::new() };
        // What is kept here is bounded by the limit: it need not hold up its sender as well.
        partial.extend_from_slice(&tail);
        let overlong = if partial.len() > limit { partial.split().freeze() } else { Bytes::new() };
        let due = credit(bytes.len());
        self.emit(rank, channel, begun, None, out);
        self.emit(rank, channel, head, None, out);
        self.emit(rank, channel, overlong, None, out);
        if due.is_some() {
            out.push(Piece { channel, content: Bytes::new().into(), credit: due });
        }
    }

    /// A rank's stream has ended: what was held back comes out.
    pub fn finish(&mut self, rank: usize, out: &mut Vec<Piece>) {
        for channel in 0..2 {
            if let Some(channels) = self.partial.get_mut(rank) {
                let rest = std::mem::take(&mut channels[channel]).freeze();
                self.emit(rank, channel, rest, None, out);
            }
        }
    }

    /// A line of bpsh's own to standard error.
    pub fn message(&mut self, text: &str, out: &mut Vec<Piece>) {
        let mut line = BytesMut::new();
        let screen = &mut self.screens[1];
        if std::mem::take(&mut screen.mid_line) {
            line.extend_from_slice(b"\n");
        }
        screen.last = None;
        line.extend_from_slice(text.as_bytes());
        line.extend_from_slice(b"\n");
        out.push(Piece { channel: 1, content: line.freeze().into(), credit: None });
    }

    fn emit(&mut self, rank: usize, channel: Channel, bytes: Bytes, credit: Option<Credit>, out: &mut Vec<Piece>) {
        let node = self.nodes.get(rank).copied().unwrap_or(-1);
        let Some(last) = bytes.last().copied() else { return };
        if self.is_plain() {
            out.push(Piece { channel, content: bytes.into(), credit });
            return;
        }
        let screen = &mut self.screens[channel];
        let mut text = BytesMut::new();
        if screen.last != Some(rank) {
            if std::mem::take(&mut screen.mid_line) {
                text.extend_from_slice(b"\n");
            }
            if self.style.divider {
                text.extend_from_slice(format!("{node}\t{:-<DASHES$}\n", "").as_bytes());
            }
            screen.last = Some(rank);
        }
        if let Some(prefix) = self.style.prefix {
            let prefix = match prefix {
                Prefix::Padded => format!("{node:>3}: "),
                Prefix::Label { colour: false } => format!("{node}: "),
                Prefix::Label { colour: true } => format!("\x1b[36m{node}:\x1b[0m "),
            };
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                if !screen.mid_line {
                    text.extend_from_slice(prefix.as_bytes());
                }
                text.extend_from_slice(line);
                screen.mid_line = line.last() != Some(&b'\n');
            }
            out.push(Piece { channel, content: text.freeze().into(), credit });
            return;
        }
        screen.mid_line = last != b'\n';
        if !text.is_empty() {
            out.push(Piece { channel, content: text.freeze().into(), credit: None });
        }
        out.push(Piece { channel, content: bytes.into(), credit });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::flags::Form;
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Style = Style { lines: None, prefix: None, sorted: false, divider: false, form: Form::Streams };
    const LINES: Style = Style { lines: Some(8), ..PLAIN };
    const PREFIX: Style = Style { prefix: Some(Prefix::Padded), ..LINES };
    const LABEL: Style = Style { prefix: Some(Prefix::Label { colour: false }), ..LINES };
    const COLOUR: Style = Style { prefix: Some(Prefix::Label { colour: true }), ..LINES };
    const DIVIDER: Style = Style { divider: true, ..PLAIN };

    /// What a style makes of `(rank, text)` on standard output; ranks are nodes 0, 1, 20.
    fn shown(style: Style, pieces: &[(usize, &str)]) -> String {
        let mut layout = Layout::new(style, vec![0, 1, 20]);
        let mut out = Vec::new();
        for (rank, text) in pieces {
            layout.push(*rank, 0, Bytes::copy_from_slice(text.as_bytes()), false, &mut out);
        }
        (0..3).for_each(|rank| layout.finish(rank, &mut out));
        let credit: usize = out.iter().filter_map(|piece| piece.credit).map(|credit| credit.bytes).sum();
        assert_eq!(credit, pieces.iter().map(|(_, text)| text.len()).sum::<usize>(), "all is acknowledged");
        assert!(out.iter().all(|piece| piece.channel == 0));
        out.into_iter().map(|piece| String::from_utf8_lossy(&piece.content.into_bytes()).into_owned()).collect()
    }

    #[test]
    fn styles() {
        let dashes = "-".repeat(69);
        let divided = format!("0\t{dashes}\na\nb\n1\t{dashes}\nc\n0\t{dashes}\nd\n");
        for (style, pieces, expected) in [
            (PLAIN, &[(0, "a"), (1, "b\nc"), (0, "\n")][..], "ab\nc\n"),
            (LINES, &[(0, "a"), (1, "b\nc"), (0, "\n")], "b\na\nc"),
            (LINES, &[(0, "a\nb\nc"), (0, "d\n")], "a\nb\ncd\n"),
            // Longer than the buffer: passed on, and the line ended when another comes between.
            (LINES, &[(0, "123456789"), (0, "x\n")], "123456789x\n"),
            (LINES, &[(0, "123456789"), (1, "b\n"), (0, "x\n")], "123456789\nb\nx\n"),
            (PREFIX, &[(0, "a\n\nb"), (2, "c\n"), (0, "d")], "  0: a\n  0: \n 20: c\n  0: bd"),
            (PREFIX, &[(0, "123456789"), (0, "x\ny\n")], "  0: 123456789x\n  0: y\n"),
            (PREFIX, &[(0, "123456789"), (1, "b\n"), (0, "x\n")], "  0: 123456789\n  1: b\n  0: x\n"),
            (LABEL, &[(0, "a\nb\n"), (2, "c\n")], "0: a\n0: b\n20: c\n"),
            (COLOUR, &[(2, "c\n")], "\x1b[36m20:\x1b[0m c\n"),
            (DIVIDER, &[(0, "a\n"), (0, "b"), (1, "c\n"), (0, "d\n")], &divided),
        ] {
            assert_eq!(shown(style, pieces), expected, "{style:?} {pieces:?}");
        }
    }

    #[test]
    fn a_message_starts_a_line() {
        let mut layout = Layout::new(PREFIX, vec![0]);
        let mut out = Vec::new();
        layout.push(0, 1, Bytes::from_static(b"123456789"), true, &mut out);
        layout.message("3: down", &mut out);
        layout.push(0, 1, Bytes::from_static(b"x\n"), true, &mut out);
        let text: Vec<u8> = out.into_iter().flat_map(|piece| piece.content.into_bytes()).collect();
        assert_eq!(String::from_utf8_lossy(&text), "  0: 123456789\n3: down\n  0: x\n");
    }

    proptest! {
        /// However streams are cut: with a prefix, taking the lines of one rank and their prefixes away gives its stream back,
        /// as long as lines fit the buffer.
        #[test]
        fn prefixed_lines_are_whole(pieces in prop::collection::vec((0usize..3, "[a\n]{0,7}"), 0..40)) {
            // No line reaches 8 bytes: a newline after every piece.
            let pieces: Vec<(usize, String)> = pieces.into_iter().map(|(rank, text)| (rank, text + "\n")).collect();
            let cut: Vec<(usize, &str)> = pieces.iter().flat_map(|(rank, text)| {
                let middle = text.len() / 2;
                [(*rank, &text[..middle]), (*rank, &text[middle..])]
            }).collect();
            let text = shown(PREFIX, &cut);
            for (rank, node) in [(0usize, "  0: "), (1, "  1: "), (2, " 20: ")] {
                let expected: String = pieces.iter().filter(|(r, _)| *r == rank).map(|(_, text)| text.as_str()).collect();
                let got: String = text.split_inclusive('\n').filter_map(|line| line.strip_prefix(node)).collect();
                prop_assert_eq!(got, expected);
            }
        }
    }
}
