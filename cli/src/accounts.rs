//! Users and groups by number and by name: from this host's files, else from `getent`, which also asks network services. (The
//! functions of the C library load modules for that, which a static program cannot do.)

use std::collections::HashMap;
use std::process::{Command, Stdio};

/// A list of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    User,
    Group,
}

/// Names that have been looked up.
#[derive(Debug, Default)]
pub struct Accounts {
    names: HashMap<(Kind, u32), String>,
}

impl Accounts {
    /// The name of an id, the id itself if it has none.
    pub fn name(&mut self, kind: Kind, id: u32) -> String {
        let name = || {
            let word = id.to_string();
            kind.look_up(&word, |text| find(text, |_, known| *known == word).map(|(name, _)| name)).unwrap_or(word)
        };
        self.names.entry((kind, id)).or_insert_with(name).clone()
    }
}

impl Kind {
    /// The id of a name; digits stand for themselves.
    ///
    /// # Errors
    /// For people: there is none of that name.
    pub fn id(self, name: &str) -> Result<u32, String> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        let of_name = |text: &str| find(text, |known, _| *known == name).and_then(|(_, id)| id.parse().ok());
        let kind = if self == Kind::User { "user" } else { "group" };
        self.look_up(name, of_name).ok_or_else(|| format!("there is no {kind} `{name}` on this host"))
    }

    /// What `find` finds in the file, else in what getent(1) says of `word`.
    fn look_up<T>(self, word: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let database = if self == Kind::User { "passwd" } else { "group" };
        let file = std::fs::read(format!("/etc/{database}")).unwrap_or_default();
        find(&String::from_utf8_lossy(&file)).or_else(|| {
            // "--": a name that begins with a dash is not an option.
            let output = Command::new("getent").args([database, "--", word]).stderr(Stdio::null()).output().ok()?;
            find(&String::from_utf8_lossy(&output.stdout))
        })
    }
}

/// Name and id of the first line whose name and id are wanted: passwd(5) and group(5) both have the name first and the id third.
fn find(text: &str, wanted: impl Fn(&&str, &&str) -> bool) -> Option<(String, String)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = fields.nth(1)?;
        wanted(&name, &id).then(|| (name.to_owned(), id.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_name_and_by_number() {
        let text = "# comment\nroot:x:0:0::/root:/bin/sh\n:x:7:7\nbroken\nme:x:1000:1000:::\n";
        assert_eq!(find(text, |_, id| *id == "1000").map(|(name, _)| name).as_deref(), Some("me"));
        assert_eq!(find(text, |name, _| *name == "me").map(|(_, id)| id).as_deref(), Some("1000"));
        assert_eq!(find(text, |_, id| *id == "7"), None);
        for nobody in ["m", "", "x", "me:x"] {
            assert_eq!(find(text, |name, _| *name == nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn there_and_back() {
        let mut accounts = Accounts::default();
        assert_eq!((accounts.name(Kind::User, 0).as_str(), accounts.name(Kind::Group, 0).as_str()), ("root", "root"));
        assert_eq!(accounts.name(Kind::User, 3_999_999_999), "3999999999");
        assert_eq!((Kind::User.id("root"), Kind::Group.id("1234")), (Ok(0), Ok(1234)));
        for nobody in ["no-such-user-here", "", "-1", "99999999999"] {
            assert!(Kind::User.id(nobody).is_err(), "{nobody:?}");
        }
    }
}
