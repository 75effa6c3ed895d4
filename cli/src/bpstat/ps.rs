//! The filter behind `ps … | bpstat -P`: puts a column with the node before each line. Pure.
//!
//! Where a line's PID stands is told by the heading `PID`: numbers are right-aligned, so it ends where the heading ends;
//! where a wide neighbour has shifted the line, it is the field of the same index. Without a heading the first number of a
//! line counts.
//!
//! Invariants: taking the column away gives the input, byte for byte, whatever it is and however it is cut. At most
//! [`HEAD`] bytes are kept back.

use std::collections::HashMap;

/// A PID stands within this many bytes of its line, or is not found.
const HEAD: usize = 4096;
/// Least width of the column, which also holds its heading.
const WIDTH: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PidColumn {
    /// Where the heading ends, in bytes from the line's start.
    end: usize,
    /// How many headings stand before it.
    index: usize,
}

#[derive(Debug)]
pub struct Filter {
    /// Node of each ghost by PID.
    nodes: HashMap<u32, i32>,
    width: usize,
    column: Option<PidColumn>,
    /// The beginning of a line whose PID has not been looked for yet.
    head: Vec<u8>,
    /// The line's beginning is out already.
    passing: bool,
}

impl Filter {
    /// For ghosts with their nodes.
    pub fn new(nodes: HashMap<u32, i32>) -> Filter {
        let widest = nodes.values().map(|node| node.to_string().len()).max().unwrap_or(0);
        Filter { nodes, width: widest.max(WIDTH), column: None, head: Vec::new(), passing: false }
    }

    /// Takes a piece of input; appends what is ready to `out`.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            // A line's beginning is cut at the same place however it arrives.
            let most = if self.passing { bytes.len() } else { bytes.len().min(HEAD - self.head.len()) };
            let newline = bytes[..most].iter().position(|byte| *byte == b'\n');
            let (piece, rest) = bytes.split_at(newline.map_or(most, |newline| newline + 1));
            bytes = rest;
            if self.passing {
                out.extend_from_slice(piece);
            } else {
                self.head.extend_from_slice(piece);
                if newline.is_none() && self.head.len() < HEAD {
                    return;
                }
                self.start_line(out);
            }
            self.passing = newline.is_none();
        }
    }

    /// The input has ended: what is kept back comes out.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.head.is_empty() {
            self.start_line(out);
        }
        self.passing = false;
    }

    fn start_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.head);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let label = if let Some(column) = heading(text) {
            self.column = Some(column);
            "NODE".to_owned()
        } else {
            let node = pid(text, self.column).and_then(|pid| self.nodes.get(&pid));
            node.map(i32::to_string).unwrap_or_default()
        };
        out.extend_from_slice(format!("{label:<width$} ", width = self.width).as_bytes());
        out.extend_from_slice(&line);
    }
}

/// Fields of a line: where they start, and their bytes.
fn fields(line: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    line.split(|byte| byte.is_ascii_whitespace()).filter_map(move |field| {
        let start = at;
        at += field.len() + 1;
        (!field.is_empty()).then_some((start, field))
    })
}

/// A line of headings has a field `PID` and, other than a process's line, no number.
fn heading(line: &[u8]) -> Option<PidColumn> {
    if fields(line).any(|(_, field)| number(field).is_some()) {
        return None;
    }
    let (index, (start, field)) = fields(line).enumerate().find(|(_, (_, field))| *field == b"PID")?;
    Some(PidColumn { end: start + field.len(), index })
}

fn pid(line: &[u8], column: Option<PidColumn>) -> Option<u32> {
    let Some(PidColumn { end, index }) = column else {
        return fields(line).find_map(|(_, field)| number(field));
    };
    let aligned = fields(line).find(|(start, field)| start + field.len() == end).map(|(_, field)| field);
    let touching = || {
        // A neighbour without a blank between: the digits at the end.
        let digits = aligned?.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |other| other + 1);
        number(&aligned?[digits..])
    };
    aligned.and_then(number).or_else(|| fields(line).nth(index).and_then(|(_, field)| number(field))).or_else(touching)
}

fn number(field: &[u8]) -> Option<u32> {
    if field.is_empty() || !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filtered(nodes: &[(u32, i32)], input: &str) -> String {
        let mut filter = Filter::new(nodes.iter().copied().collect());
        let mut out = Vec::new();
        filter.feed(input.as_bytes(), &mut out);
        filter.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_forms_of_ps() {
        let nodes = [(1345, 0), (1346, 12), (4_194_303, 3)];
        for (input, expected) in [
            // ps xf
            (
                "    PID TTY      STAT   TIME COMMAND\n   1343 pts/2    R      0:08  \\_ ./hello-world\n   1345 pts/2    R      0:08  |   \\_ [hello 1346]\n4194303 pts/2    R      0:00  \\_ x\n",
                "NODE     PID TTY      STAT   TIME COMMAND\n        1343 pts/2    R      0:08  \\_ ./hello-world\n0       1345 pts/2    R      0:08  |   \\_ [hello 1346]\n3    4194303 pts/2    R      0:00  \\_ x\n",
            ),
            // ps aux
            (
                "USER         PID %CPU %MEM    VSZ\nroot           1  0.1  0.0   1345\nme          1346  0.1  0.0   1345\n",
                "NODE USER         PID %CPU %MEM    VSZ\n     root           1  0.1  0.0   1345\n12   me          1346  0.1  0.0   1345\n",
            ),
            // ps -ef: the parent is another column
            (
                "UID          PID    PPID  C CMD\nroot        1345    1346  0 a\nroot        7777    1345  0 b\n1345        1346       1  0 c\n",
                "NODE UID          PID    PPID  C CMD\n0    root        1345    1346  0 a\n     root        7777    1345  0 b\n12   1345        1346       1  0 c\n",
            ),
            // ps -o ppid,pid,lstart and the other way round
            (
                "   PPID     PID                  STARTED\n   1345    1346 Sat Nov 21 05:00:00 2026\n",
                "NODE    PPID     PID                  STARTED\n12      1345    1346 Sat Nov 21 05:00:00 2026\n",
            ),
            (
                "                 STARTED     PID\nSat Nov 21 05:00:00 2026    1346\n",
                "NODE                  STARTED     PID\n12   Sat Nov 21 05:00:00 2026    1346\n",
            ),
            // Shifted by a wide neighbour; touching it.
            (
                "USER         PID CMD\naveryveryverylongname 1345 x\n",
                "NODE USER         PID CMD\n0    averyveryverylongname 1345 x\n",
            ),
            (
                "USER      PID CMD\nsystemd+ 1345 x\nsystemd--1346 x y\n",
                "NODE USER      PID CMD\n0    systemd+ 1345 x\n12   systemd--1346 x y\n",
            ),
            // No heading: the first number.
            ("   1345 pts/2 R\nroot 1346 7 x\n", "0       1345 pts/2 R\n12   root 1346 7 x\n"),
            // A process that speaks of a PID is no heading; no newline at the end.
            ("    PID CMD\n   1345 grep PID", "NODE     PID CMD\n0       1345 grep PID"),
            ("\n\n", "     \n     \n"),
            ("", ""),
        ] {
            assert_eq!(filtered(&nodes, input), expected);
        }
    }

    #[test]
    fn wide_nodes_widen_the_column() {
        assert_eq!(filtered(&[(7, 65535)], "PID\n  7\n  8\n"), "NODE  PID\n65535   7\n        8\n");
    }

    #[test]
    fn the_real_ps_is_understood() {
        let own = std::process::id();
        for options in
            [&["x", "f"][..], &["aux"], &["-ef"], &["-eo", "user,ppid,pid,args"], &["axl"], &["-eLf"], &["x", "h"]]
        {
            let output = std::process::Command::new("ps").args(options).output().expect("ps");
            let mut filter = Filter::new(HashMap::from([(own, 77)]));
            let mut out = Vec::new();
            filter.feed(&output.stdout, &mut out);
            filter.finish(&mut out);
            let text = String::from_utf8_lossy(&out).into_owned();
            let mine: Vec<&str> = text.lines().filter(|line| line.starts_with("77 ")).collect();
            assert!(!mine.is_empty(), "{options:?}\n{text}");
            assert!(mine.iter().all(|line| line.contains(&format!("{own}"))), "{options:?} {mine:?}");
        }
    }

    proptest! {
        #[test]
        fn taking_the_column_away_gives_the_input(
            input in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), b'0'..=b'9', any::<u8>()], 0..3000),
            long in 0usize..3 * HEAD,
            cut in 1usize..5000,
        ) {
            let mut input = input;
            let middle = input.len() / 2;
            input.splice(middle..middle, std::iter::repeat_n(b'x', long));
            let mut filter = Filter::new(HashMap::from([(1, 5)]));
            let (mut whole, mut pieces) = (Vec::new(), Vec::new());
            filter.feed(&input, &mut whole);
            filter.finish(&mut whole);
            let mut filter = Filter::new(HashMap::from([(1, 5)]));
            for piece in input.chunks(cut) {
                filter.feed(piece, &mut pieces);
            }
            filter.finish(&mut pieces);
            prop_assert_eq!(&whole, &pieces);
            let back: Vec<u8> = whole.split_inclusive(|byte| *byte == b'\n').flat_map(|line| &line[WIDTH + 1..]).copied().collect();
            prop_assert_eq!(back, input);
        }
    }
}
