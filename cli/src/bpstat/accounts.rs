//! Names of users and groups: from this host's files, else from `getent`, which also asks network services. (The functions
//! of the C library load modules for that, which a static program cannot do.)

use std::collections::HashMap;
use std::process::{Command, Stdio};

use super::nodes::Names;

/// Names that have been looked up.
#[derive(Debug, Default)]
pub struct Accounts {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names for Accounts {
    fn user(&mut self, uid: u32) -> String {
        self.users.entry(uid).or_insert_with(|| look_up("passwd", uid)).clone()
    }

    fn group(&mut self, gid: u32) -> String {
        self.groups.entry(gid).or_insert_with(|| look_up("group", gid)).clone()
    }
}

/// The name of an id, the id itself if it has none.
fn look_up(database: &str, id: u32) -> String {
    let file = std::fs::read(format!("/etc/{database}")).unwrap_or_default();
    find(&String::from_utf8_lossy(&file), id)
        .or_else(|| {
            let output =
                Command::new("getent").args([database, &id.to_string()]).stderr(Stdio::null()).output().ok()?;
            find(&String::from_utf8_lossy(&output.stdout), id)
        })
        .unwrap_or_else(|| id.to_string())
}

/// passwd(5) and group(5) both have the name first and the id third.
fn find(text: &str, id: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_id() {
        let text = "# comment\nroot:x:0:0::/root:/bin/sh\n:x:7:7\nbroken\nme:x:1000:1000:::\n";
        assert_eq!(find(text, 1000).as_deref(), Some("me"));
        assert_eq!(find(text, 7), None);
        let mut accounts = Accounts::default();
        assert_eq!((accounts.user(0).as_str(), accounts.group(0).as_str()), ("root", "root"));
        assert_eq!(accounts.user(3_999_999_999), "3999999999");
    }
}
