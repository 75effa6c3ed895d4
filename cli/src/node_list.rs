//! A node list as it was typed: groups are replaced, and a mistake is shown where it stands.

use ghost_proto::client::Refused;
use ghost_proto::instance::Instance;
use ghost_proto::nodeset::{MAX_TEXT, NodeSpec};

use crate::groups::Groups;

/// Groups within groups.
const MAX_DEPTH: usize = 16;
/// Of a long list so many characters are shown on each side of the mistake.
const AROUND: usize = 36;

/// A list that can be sent to ghostd.
#[derive(Debug)]
pub struct NodeList {
    typed: String,
    text: String,
    /// What came from groups: from where to where in `text`, and where the group stands in `typed`. In order.
    replaced: Vec<Replaced>,
}

#[derive(Debug)]
struct Replaced {
    begin: usize,
    end: usize,
    position: usize,
    group: String,
}

/// What is wrong with a list, for people: with the list, and a caret below the place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadList(String);

impl NodeList {
    /// Reads a list and replaces its groups.
    ///
    /// # Errors
    /// It is no node list, or a group cannot be had.
    pub fn read(typed: &str, instance: &Instance) -> Result<NodeList, BadList> {
        read(typed, &mut Groups::of(instance))
    }

    /// Without groups.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// ghostd's refusal, as people read it.
    pub fn explain(&self, refused: &Refused) -> String {
        let Some(position) = refused.position else { return refused.text.clone() };
        let position = position as usize;
        // The end of the last group before it, in both.
        let mut before = (0, 0);
        for Replaced { begin, end, position: group_at, group } in &self.replaced {
            if position < *begin {
                break;
            }
            if position < *end {
                return pointed(&format!("@{group}: {}", refused.text), &self.typed, Some(*group_at));
            }
            before = (*end, group_at + 1 + group.chars().count());
        }
        pointed(&refused.text, &self.typed, Some(before.1 + position - before.0))
    }
}

fn read(typed: &str, groups: &mut Groups) -> Result<NodeList, BadList> {
    let at = |position: usize, message: &str| BadList(pointed(message, typed, Some(position)));
    let spec = NodeSpec::parse(typed).map_err(|error| at(error.position, &error.message))?;
    let (mut text, mut length) = (String::new(), 0);
    let mut replaced = Vec::new();
    let mut characters = typed.chars();
    let mut taken = 0;
    for group in spec.groups() {
        text.extend(characters.by_ref().take(group.position - taken));
        let inner = expand(&group.name, groups, &mut Vec::new()).map_err(|why| at(group.position, &why))?;
        let begin = length + group.position - taken;
        text.push_str(&format!("({inner})"));
        length = begin + inner.chars().count() + 2;
        let skip = 1 + group.name.chars().count();
        characters.by_ref().take(skip).for_each(drop);
        taken = group.position + skip;
        replaced.push(Replaced { begin, end: length, position: group.position, group: group.name });
        if text.len() > MAX_TEXT {
            return Err(at(0, "with its groups this list is too long"));
        }
    }
    text.extend(characters);
    Ok(NodeList { typed: typed.to_owned(), text, replaced })
}

/// A group as a list without groups.
fn expand(name: &str, groups: &mut Groups, within: &mut Vec<String>) -> Result<String, String> {
    if within.iter().any(|outer| outer == name) {
        return Err(format!("group `{name}` is part of itself"));
    }
    if within.len() == MAX_DEPTH {
        return Err(format!("more than {MAX_DEPTH} groups within one another"));
    }
    let list = groups.get(name)?;
    if list.trim().is_empty() {
        return Ok(String::new());
    }
    let explain = |why: String| format!("group `{name}`: {why}");
    let spec = NodeSpec::parse(&list)
        .map_err(|error| explain(format!("{} (character {} of `{list}`)", error.message, error.position + 1)))?;
    within.push(name.to_owned());
    let mut text = String::new();
    let mut characters = list.chars();
    let mut taken = 0;
    for group in spec.groups() {
        text.extend(characters.by_ref().take(group.position - taken));
        let inner = expand(&group.name, groups, within).map_err(explain)?;
        text.push_str(&format!("({inner})"));
        let skip = 1 + group.name.chars().count();
        characters.by_ref().take(skip).for_each(drop);
        taken = group.position + skip;
        if text.len() > MAX_TEXT {
            return Err(explain("too long".to_owned()));
        }
    }
    text.extend(characters);
    within.pop();
    Ok(text)
}

/// A message, and a caret below the place in the list that it is about.
pub fn pointed(message: &str, list: &str, position: Option<usize>) -> String {
    let Some(position) = position else { return message.to_owned() };
    // Control characters would move the caret.
    let characters: Vec<char> = list.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (begin, head) = match position.saturating_sub(AROUND) {
        0 => (0, ""),
        begin => (begin, "…"),
    };
    let end = position.saturating_add(AROUND).min(characters.len());
    let tail = if end < characters.len() { "…" } else { "" };
    let shown: String = characters.get(begin.min(end)..end).unwrap_or_default().iter().collect();
    let width = head.chars().count() + position.saturating_sub(begin) + 1;
    format!("{message}\n  {head}{shown}{tail}\n  {:>width$}", "^")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups() -> Groups {
        Groups::written(
            r#"
            [groups]
            io = "0-3"
            all-but = "all!(@io,9)"
            none = { command = "true" }
            bad = "0-"
            wrong = "0,é"
            self = "0,@myself"
            myself = "@self"
            "#,
        )
    }

    fn read(typed: &str) -> Result<NodeList, String> {
        super::read(typed, &mut groups()).map_err(|bad| bad.to_string())
    }

    #[test]
    fn groups_are_replaced() {
        for (typed, text) in
            [("0,2", "0,2"), ("@io", "(0-3)"), ("7,@io!1, @all-but", "7,(0-3)!1, (all!((0-3),9))"), ("5!@none", "5!()")]
        {
            assert_eq!(read(typed).expect(typed).text(), text);
        }
    }

    #[test]
    fn mistakes_are_shown_where_they_stand() {
        for (typed, shown) in [
            ("0,3-1", "the range ends before it begins; write 1-3\n  0,3-1\n    ^"),
            ("1,@self", "group `self`: group `myself`: group `self` is part of itself\n  1,@self\n    ^"),
        ] {
            assert_eq!(read(typed).expect_err(typed), shown);
        }
        let wrong = read("1,@wrong").expect_err("é");
        assert!(
            wrong.starts_with("group `wrong`: `é` is no node") && wrong.contains("(character 3 of `0,é`)"),
            "{wrong}"
        );
        assert!(read("@nowhere").expect_err("none").contains("there is no group `nowhere`"));
    }

    #[test]
    fn a_refusal_points_into_what_was_typed() {
        let list = read("7,@io,@bad,99").expect("a list");
        assert_eq!(list.text(), "7,(0-3),(0-),99");
        for (position, caret) in [(0, 0), (2, 2), (4, 2), (8, 6), (11, 6), (13, 11)] {
            let refused = Refused { text: "no".to_owned(), position: Some(position) };
            let said = list.explain(&refused);
            let line = said.lines().last().expect("a line");
            assert_eq!(line.len(), 2 + caret + 1, "{said}");
        }
        let refused = Refused { text: "no".to_owned(), position: Some(9) };
        assert!(list.explain(&refused).starts_with("@bad: no\n"));
    }

    #[test]
    fn a_caret_points_at_the_place() {
        assert_eq!(pointed("no node 99", "0-3,99", Some(4)), "no node 99\n  0-3,99\n      ^");
        assert_eq!(pointed("not yours", "0", None), "not yours");
        assert_eq!(pointed("no", "0,\n", Some(9)), "no\n  0, \n           ^");
        let long = pointed("no", &"0,".repeat(100), Some(100));
        let lines: Vec<&str> = long.lines().collect();
        assert_eq!(lines[2].chars().count(), 2 + 1 + AROUND + 1);
        assert!(lines[1].starts_with("  …0,") && lines[1].ends_with('…'), "{long}");
    }

    proptest! {
        /// Whatever a refusal's position is, the caret is within the list or right behind it.
        #[test]
        fn a_caret_is_never_far_off(typed in "[0-9]{1,3}(,([0-9]{1,3}|@io|@none|@all-but)){0,8}", position in 0u32..200) {
            let list = read(&typed).expect("a list");
            let position = position.min(list.text().chars().count() as u32);
            let said = list.explain(&Refused { text: "no".to_owned(), position: Some(position) });
            let caret = said.lines().last().expect("a line").chars().count() - 3;
            let shown = said.lines().nth(1).expect("a line").chars().count() - 2;
            prop_assert!(caret <= shown, "{}", said);
        }
    }
}
