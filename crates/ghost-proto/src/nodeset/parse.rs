//! From text to terms.

use super::names::{NamePattern, Padded, Part};
use super::{Level, MAX_NODES, MAX_TEXT, NodeSpec, Numbers, Operand, Operator, ParseError, Selector, Term};
use crate::ids::NodeNumber;
use crate::node_state::NodeStatus;

/// Parentheses within parentheses.
const MAX_DEPTH: usize = 32;

pub(super) fn parse(text: &str) -> Result<NodeSpec, ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError { position: 0, message: format!("a list has at most {MAX_TEXT} bytes") });
    }
    let characters: Vec<char> = text.chars().collect();
    let mut parser = Parser { text: &characters, at: 0, terms: 0 };
    let list = parser.list(0)?;
    match parser.peek() {
        None => Ok(list),
        Some(_) => Err(fail(parser.at, "this parenthesis closes nothing")),
    }
}

struct Parser<'a> {
    text: &'a [char],
    at: usize,
    terms: usize,
}

fn fail(position: usize, message: impl Into<String>) -> ParseError {
    ParseError { position, message: message.into() }
}

/// What ends a word.
fn is_special(c: char) -> bool {
    matches!(c, ',' | '!' | '&' | '^' | '(' | ')' | ' ' | '\t')
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }

    /// Up to the end or a parenthesis that closes.
    fn list(&mut self, depth: usize) -> Result<NodeSpec, ParseError> {
        let mut terms = Vec::new();
        let mut operator = Operator::And;
        loop {
            self.skip_blanks();
            if self.terms == MAX_NODES {
                return Err(fail(self.at, format!("a list has at most {MAX_NODES} terms")));
            }
            self.terms += 1;
            let position = self.at;
            terms.push(Term { operator, operand: self.operand(depth)?, position });
            self.skip_blanks();
            operator = match self.peek() {
                None | Some(')') => return Ok(NodeSpec { terms }),
                Some(',') => Operator::And,
                Some('!') => Operator::Without,
                Some('&') => Operator::Among,
                Some('^') => Operator::Either,
                Some(_) => return Err(fail(self.at, "a comma is missing here")),
            };
            self.at += 1;
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, ParseError> {
        let start = self.at;
        match self.peek() {
            Some('(') => {
                if depth == MAX_DEPTH {
                    return Err(fail(start, format!("more than {MAX_DEPTH} parentheses within one another")));
                }
                self.at += 1;
                self.skip_blanks();
                let list = if self.peek() == Some(')') { NodeSpec::default() } else { self.list(depth + 1)? };
                if self.peek() != Some(')') {
                    return Err(fail(start, "this parenthesis is not closed"));
                }
                self.at += 1;
                Ok(Operand::List(list))
            }
            Some('@') => {
                self.at += 1;
                let word = self.word()?;
                let known = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
                match word.iter().position(|c| !known(c)) {
                    _ if word.is_empty() => Err(fail(self.at, "the name of a group is missing here")),
                    Some(at) => Err(fail(start + 1 + at, "this does not belong into the name of a group")),
                    None => Ok(Operand::Group(word.iter().collect())),
                }
            }
            Some('!') => Err(fail(start, "without whom? write all!… for all but those")),
            _ => {
                let word = self.word()?;
                understand(word, start)
            }
        }
    }

    /// Characters up to the next special one; what stands in brackets belongs to it.
    fn word(&mut self) -> Result<&[char], ParseError> {
        let start = self.at;
        let mut bracket = None;
        while let Some(c) = self.peek() {
            match (c, bracket) {
                ('[', None) => bracket = Some(self.at),
                ('[', Some(_)) => return Err(fail(self.at, "brackets within brackets")),
                (']', Some(_)) => bracket = None,
                (']', None) => return Err(fail(self.at, "this bracket closes nothing")),
                (c, None) if is_special(c) => break,
                _ => {}
            }
            self.at += 1;
        }
        match bracket {
            Some(at) => Err(fail(at, "this bracket is not closed")),
            None => Ok(&self.text[start..self.at]),
        }
    }
}

/// One item that begins at this position.
fn understand(word: &[char], at: usize) -> Result<Operand, ParseError> {
    let text: String = word.iter().collect();
    let one = |number: NodeNumber| Operand::Numbers(vec![Numbers { first: number.0, last: number.0, step: 1 }]);
    match (text.as_str(), word.first().copied()) {
        ("", _) | (_, None) => {
            return Err(fail(at, "a node number, a range, a name or a state is missing here"));
        }
        ("master" | "-1", _) => return Ok(one(NodeNumber::MASTER)),
        ("all", _) => return Ok(Operand::Existing(Selector::All)),
        (_, Some('[')) => return bracketed_numbers(word, at),
        (_, Some('0'..='9' | '.')) if word.contains(&'/') || text == "." => return levels(word, at),
        (_, Some('0'..='9')) => return numbers(word, at, one),
        (_, Some(c)) if c.is_ascii_alphabetic() || c == '_' => {}
        _ => return Err(fail(at, format!("`{text}` is no node; {FORMS}"))),
    }
    let name = text.strip_prefix("all").unwrap_or(&text);
    let (name, negated) = match name.strip_prefix("not") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    match name.parse::<NodeStatus>() {
        Ok(status) if negated => Ok(Operand::Existing(Selector::NotIn(status))),
        Ok(status) => Ok(Operand::Existing(Selector::In(status))),
        Err(_) => named(word, at),
    }
}

const FORMS: &str = "write numbers, ranges, names, `master`, `all`, or a state or `not` and a state";

/// `3`, `0-4`, `5-`.
fn numbers(word: &[char], at: usize, one: impl Fn(NodeNumber) -> Operand) -> Result<Operand, ParseError> {
    let Some(dash) = word.iter().position(|c| *c == '-') else {
        return Ok(one(number(word, at)?));
    };
    let start = number(&word[..dash], at)?;
    if dash + 1 == word.len() {
        return Ok(Operand::From(start));
    }
    let end = number(&word[dash + 1..], at + dash + 1)?;
    if end < start {
        return Err(fail(at, format!("the range ends before it begins; write {end}-{start}")));
    }
    Ok(Operand::Numbers(vec![Numbers { first: start.0, last: end.0, step: 1 }]))
}

fn number(word: &[char], at: usize) -> Result<NodeNumber, ParseError> {
    let text: String = word.iter().collect();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fail(at, format!("`{text}` is not a node number")));
    }
    match text.parse::<i32>() {
        Ok(number) if number <= NodeNumber::MAX.0 => Ok(NodeNumber(number)),
        _ => Err(fail(at, format!("{text} is beyond the largest node number, {}", NodeNumber::MAX))),
    }
}

fn bracketed_numbers(word: &[char], at: usize) -> Result<Operand, ParseError> {
    let mut parts = parts(word, at)?;
    match (parts.len(), parts.pop()) {
        (1, Some(Part::Numbers(ranges))) => {
            let numbers = |range: Padded| Numbers {
                first: range.first.cast_signed(),
                last: range.last.cast_signed(),
                step: range.step.cast_signed(),
            };
            Ok(Operand::Numbers(ranges.into_iter().map(numbers).collect()))
        }
        _ => Err(fail(at, "a name begins with a letter; brackets alone stand for node numbers")),
    }
}

fn named(word: &[char], at: usize) -> Result<Operand, ParseError> {
    let pattern = NamePattern { parts: parts(word, at)? };
    match pattern.count() {
        Some(_) => Ok(Operand::Named(pattern)),
        None => Err(fail(at, format!("this stands for more than {MAX_NODES} names"))),
    }
}

/// Text and brackets in turn.
fn parts(word: &[char], at: usize) -> Result<Vec<Part>, ParseError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut i = 0;
    while let Some(c) = word.get(i).copied() {
        match c {
            '[' => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                let end = word[i..].iter().position(|c| *c == ']').map_or(word.len(), |length| i + length);
                parts.push(Part::Numbers(ranges(&word[i + 1..end], at + i + 1)?));
                i = end;
            }
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => text.push(c),
            '/' => return Err(fail(at + i, "levels of a tree are numbers or `.`; a step stands in brackets: [0-8/2]")),
            c => return Err(fail(at + i, format!("`{c}` does not belong into a name of a node"))),
        }
        i += 1;
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// What stands in brackets: `1-3,8-20/2`.
fn ranges(inside: &[char], at: usize) -> Result<Vec<Padded>, ParseError> {
    let mut ranges = Vec::new();
    let mut start = at;
    for piece in inside.split(|c| *c == ',') {
        ranges.push(range(piece, start)?);
        start += piece.len() + 1;
    }
    Ok(ranges)
}

fn range(piece: &[char], at: usize) -> Result<Padded, ParseError> {
    let (numbers, step) = match piece.iter().position(|c| *c == '/') {
        Some(slash) => {
            let step = digits(&piece[slash + 1..], at + slash + 1)?;
            if step == 0 {
                return Err(fail(at + slash + 1, "a step is at least 1"));
            }
            (&piece[..slash], step)
        }
        None => (piece, 1),
    };
    let (first_text, last) = match numbers.iter().position(|c| *c == '-') {
        Some(dash) => (&numbers[..dash], Some(digits(&numbers[dash + 1..], at + dash + 1)?)),
        None => (numbers, None),
    };
    let first = digits(first_text, at)?;
    let last = last.unwrap_or(first);
    if last < first {
        return Err(fail(at, "the range ends before it begins"));
    }
    let width = if first_text.first() == Some(&'0') { first_text.len() } else { 0 };
    Ok(Padded { first, last, step, width })
}

/// A number in brackets: of nodes or of a name.
fn digits(text: &[char], at: usize) -> Result<u32, ParseError> {
    let written: String = text.iter().collect();
    if written.is_empty() || written.len() > 9 || !written.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fail(at, format!("`{written}` is no number")));
    }
    match written.parse::<u32>() {
        Ok(number) if number <= NodeNumber::MAX.0.cast_unsigned() => Ok(number),
        _ => Err(fail(at, format!("{written} is beyond {}", NodeNumber::MAX))),
    }
}

/// `.`, `1/.`, `./0-3`.
fn levels(word: &[char], at: usize) -> Result<Operand, ParseError> {
    let mut levels = Vec::new();
    let mut start = at;
    for piece in word.split(|c| *c == '/') {
        levels.push(match piece {
            ['.'] => Level::All,
            [] => return Err(fail(start, "a level is missing here: a number, a range, or `.` for all of it")),
            _ => {
                let range = range(piece, start)?;
                Level::Range(range.first, range.last)
            }
        });
        start += piece.len() + 1;
    }
    Ok(Operand::Levels(levels))
}
