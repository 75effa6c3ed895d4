//! Folded host names: `n[1-3,8-20/2]`, `r[1-2]n[01-40]`. Zeros in front are kept: `[08-10]` is 08, 09, 10.

use super::MAX_NODES;

/// A name with ranges of numbers in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamePattern {
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Numbers(Vec<Padded>),
}

/// Numbers from first to last, both included, with at least `width` digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Padded {
    pub first: u32,
    pub last: u32,
    pub step: u32,
    pub width: usize,
}

impl Padded {
    pub fn numbers(self) -> impl Iterator<Item = u32> + Clone {
        (self.first..=self.last).step_by(self.step as usize)
    }

    pub fn count(self) -> usize {
        ((self.last - self.first) / self.step) as usize + 1
    }
}

impl NamePattern {
    /// How many names it stands for, if those are not more than there can be nodes.
    pub fn count(&self) -> Option<usize> {
        self.parts.iter().try_fold(1usize, |count, part| {
            let here = match part {
                Part::Text(_) => 1,
                Part::Numbers(ranges) => ranges.iter().try_fold(0usize, |sum, range| sum.checked_add(range.count()))?,
            };
            count.checked_mul(here).filter(|count| *count <= MAX_NODES)
        })
    }

    /// All names, the last number changing fastest.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![String::new()];
        for part in &self.parts {
            match part {
                Part::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Part::Numbers(ranges) => {
                    let numbers = ranges.iter().flat_map(|range| range.numbers().map(|n| (n, range.width)));
                    let all = names
                        .iter()
                        .flat_map(|name| numbers.clone().map(move |(number, width)| format!("{name}{number:0width$}")));
                    names = all.collect();
                }
            }
        }
        names
    }

    pub fn text(&self) -> String {
        let range = |range: &Padded| {
            let (first, last, width) = (range.first, range.last, range.width);
            match (first == last, range.step) {
                (true, _) => format!("{first:0width$}"),
                (false, 1) => format!("{first:0width$}-{last:0width$}"),
                (false, step) => format!("{first:0width$}-{last:0width$}/{step}"),
            }
        };
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Numbers(ranges) => format!("[{}]", ranges.iter().map(range).collect::<Vec<_>>().join(",")),
        };
        self.parts.iter().map(part).collect()
    }
}

/// `n0-3` was typed, and there is no such name: what was probably meant.
pub(super) fn meant(name: &str) -> Option<String> {
    let (head, last) = name.rsplit_once('-')?;
    let digits = head.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (stem, first) = head.split_at(head.len() - digits);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(first) && is_number(last) && !stem.is_empty()).then(|| format!("{stem}[{first}-{last}]"))
}
