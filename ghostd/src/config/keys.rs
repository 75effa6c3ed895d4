//! The keys that the file may have; for an unknown one, what was probably meant.

use toml::de::{DeTable, DeValue};

use super::Fault;

/// The keys of the file's top level.
const TOP: &[&str] = &[
    "listen",
    "lease_seconds",
    "margin_seconds",
    "log",
    "socket_mode",
    "certificate_days",
    "nodes",
    "node",
    "join",
    "view",
    "node_up",
    "node_up_seconds",
    "metrics_listen",
];
const NODE: &[&str] = &["nodes", "owner", "group", "mode"];
const JOIN: &[&str] = &["hostname", "add", "addresses", "first"];

/// Finds the first key that is not known.
pub(super) fn check(text: &str) -> Result<(), Fault> {
    let table = DeTable::parse(text)
        .map_err(|e| Fault { at: e.span().map_or(0, |span| span.start), message: e.message().to_owned() })?;
    check_table(table.get_ref(), TOP)?;
    for (key, value) in table.get_ref() {
        let known = match key.get_ref().as_ref() {
            "node" => NODE,
            "join" => JOIN,
            _ => continue,
        };
        if let DeValue::Array(entries) = value.get_ref() {
            for entry in entries {
                if let DeValue::Table(entry) = entry.get_ref() {
                    check_table(entry, known)?;
                }
            }
        }
    }
    Ok(())
}

fn check_table(table: &DeTable<'_>, known: &[&str]) -> Result<(), Fault> {
    let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
    let Some(key) = unknown.min_by_key(|key| key.span().start) else {
        return Ok(());
    };
    let name = key.get_ref().as_ref();
    let way_out = match suggest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here are {}", known.join(", ")),
    };
    Err(Fault { at: key.span().start, message: format!("unknown key `{name}`; {way_out}") })
}

/// The known word that is nearest, if one is near enough to have been meant.
fn suggest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let begun = known.iter().copied().filter(|k| word.len() >= 3 && k.starts_with(word)).min_by_key(|k| k.len());
    begun.or_else(|| {
        let (distance, nearest) = known.iter().map(|k| (distance(word, k), *k)).min()?;
        (distance <= 1 + word.len() / 4).then_some(nearest)
    })
}

/// How many letters to insert, delete, change or swap with the next turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_tells_of_every_key() {
        let manual = include_str!("../../manual/ghostd.toml.txt");
        for key in TOP.iter().chain(NODE).chain(JOIN) {
            let is_term = |line: &str| line.split(":: ").next().is_some_and(|term| term.contains(&format!("`{key}`")));
            assert!(manual.lines().any(is_term) || manual.contains(&format!("`[[{key}]]`")), "{key}");
        }
    }

    #[test]
    fn near_words_are_found() {
        assert_eq!(suggest("lisen", TOP), Some("listen"));
        assert_eq!(suggest("leaseseconds", TOP), Some("lease_seconds"));
        assert_eq!(suggest("Listen", TOP), Some("listen"));
        assert_eq!(suggest("socketmode", TOP), Some("socket_mode"));
        assert_eq!(suggest("database_url", TOP), None);
        assert_eq!(suggest("x", NODE), None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("owner", "onwer"), 1);
        assert_eq!(distance("mode", "node"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
