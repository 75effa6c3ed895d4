//! Unified diffs of short texts.

/// A line of one text, the other, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    Both(&'a str),
    First(&'a str),
    Second(&'a str),
}

impl Line<'_> {
    pub const fn is_equal(&self) -> bool {
        matches!(self, Line::Both(_))
    }
}

/// Lines around a difference that are shown.
const AROUND: usize = 4;

/// The shortest way from one text to the other (longest common subsequence), `equal` being asked for each pair.
pub fn lines<'a>(first: &[&'a str], second: &[&'a str], equal: impl Fn(&str, &str) -> bool) -> Vec<Line<'a>> {
    let (rows, columns) = (first.len(), second.len());
    // common[i][j]: of what is left from i and j on.
    let mut common = vec![vec![0u32; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            common[i][j] = if equal(first[i], second[j]) {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < rows || j < columns {
        if i < rows && j < columns && equal(first[i], second[j]) {
            found.push(Line::Both(first[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < rows && (j == columns || common[i + 1][j] >= common[i][j + 1]) {
            found.push(Line::First(first[i]));
            i += 1;
        } else {
            found.push(Line::Second(second[j]));
            j += 1;
        }
    }
    found
}

/// As `diff -u` shows it: `-` for the first text's lines, `+` for the second's.
pub fn unified(lines: &[Line<'_>]) -> String {
    let near = |at: usize| {
        let around = &lines[at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len())];
        around.iter().any(|line| !line.is_equal())
    };
    let (mut text, mut skipped) = (String::new(), false);
    for (at, line) in lines.iter().enumerate() {
        if !near(at) {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) {
            text += "@@\n";
        }
        let (mark, line) = match line {
            Line::Both(line) => (' ', line),
            Line::First(line) => ('-', line),
            Line::Second(line) => ('+', line),
        };
        text += &format!("{mark}{line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown_with_what_is_around() {
        let first: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        let mut second = first.clone();
        second[12] = "twelve";
        second.insert(14, "more");
        let all = lines(&first, &second, |a, b| a == b);
        assert_eq!(unified(&all), "@@\n 8\n 9\n 10\n 11\n-12\n+twelve\n 13\n+more\n 14\n 15\n 16\n 17\n");
        assert_eq!(unified(&lines(&first, &first, |a, b| a == b)), "");
    }
}
