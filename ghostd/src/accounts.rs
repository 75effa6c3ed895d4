//! Users and groups by name, for the configuration.
//!
//! The program is linked statically, so the C library cannot load the modules of nsswitch.conf: /etc/passwd and /etc/group
//! are read here, and other sources (LDAP, …) are asked through getent(1).

use std::fs;
use std::process::Command;

/// A list of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounts {
    Users,
    Groups,
}

/// A name that stands for no user or group here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} `{name}` on this host")]
pub struct NoAccount {
    kind: &'static str,
    name: String,
}

impl Accounts {
    /// The uid or gid of a name; a number in decimal digits stands for itself.
    ///
    /// # Errors
    /// Neither the file nor getent(1) knows the name.
    pub fn id(self, name: &str) -> Result<u32, NoAccount> {
        let (kind, file, database) = match self {
            Accounts::Users => ("user", "/etc/passwd", "passwd"),
            Accounts::Groups => ("group", "/etc/group", "group"),
        };
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        if plain && let Ok(id) = name.parse::<u32>() {
            return Ok(id);
        }
        let listed = fs::read_to_string(file).ok().and_then(|text| find(&text, name));
        // "--": a name that begins with a dash is not an option.
        let asked = || {
            let output = Command::new("getent").args([database, "--", name]).output().ok()?;
            find(&String::from_utf8_lossy(&output.stdout), name)
        };
        listed.or_else(asked).ok_or_else(|| NoAccount { kind, name: name.to_owned() })
    }
}

/// The third field of the line whose first one is `name` (passwd(5) and group(5) agree on these).
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/bash\nalicia:x:7:7::/:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(find(text, "alice"), Some(1000));
        assert_eq!(find(text, "root"), Some(0));
        for nobody in ["ali", "", "x", "alice:x"] {
            assert_eq!(find(text, nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(Accounts::Users.id("root"), Ok(0));
        assert_eq!(Accounts::Groups.id("root"), Ok(0));
        assert_eq!(Accounts::Users.id("1234"), Ok(1234));
        for nobody in ["no-such-user-here", "", "-1", "99999999999"] {
            assert!(Accounts::Users.id(nobody).is_err(), "{nobody:?}");
        }
    }
}
