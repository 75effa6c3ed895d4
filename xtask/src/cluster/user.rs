//! Who a user number is, by /etc/passwd and /etc/group themselves: a static program cannot ask the name services.

use anyhow::{Context, Result};
use ghost_sys::namespace::Credentials;
use nix::unistd::{Gid, Uid};

#[derive(Debug)]
pub struct User {
    pub credentials: Credentials,
    pub name: String,
    pub home: String,
    pub shell: String,
}

/// A number that nobody has gets a group of the same number and nothing else.
pub fn look_up(uid: u32) -> Result<User> {
    let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    let group = std::fs::read_to_string("/etc/group").context("/etc/group")?;
    Ok(find(uid, &passwd, &group))
}

fn find(uid: u32, passwd: &str, group: &str) -> User {
    let entry = passwd.lines().find_map(|line| {
        let [name, _, number, gid, _, home, shell] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
        let gid: u32 = gid.parse().ok()?;
        (number.parse() == Ok(uid)).then_some((name, gid, home, shell))
    });
    let (name, gid, home, shell) = entry.unwrap_or(("", uid, "/", "/bin/sh"));
    let member_of = |line: &str| {
        let [_, _, gid, members] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
        let gid: u32 = gid.parse().ok()?;
        (!name.is_empty() && members.split(',').any(|member| member == name)).then_some(gid)
    };
    let mut groups: Vec<u32> = std::iter::once(gid).chain(group.lines().filter_map(member_of)).collect();
    groups.sort_unstable();
    groups.dedup();
    User {
        credentials: Credentials {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
        },
        name: if name.is_empty() { uid.to_string() } else { name.to_owned() },
        home: home.to_owned(),
        shell: shell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nmail:x:8:12:mail:/var/mail:/usr/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:games,mail\nvideo:x:44:mailman\n";

    #[test]
    fn a_known_user_has_its_groups() {
        let user = find(8, PASSWD, GROUP);
        assert_eq!((user.name.as_str(), user.home.as_str()), ("mail", "/var/mail"));
        assert_eq!(user.credentials.gid, Gid::from_raw(12));
        assert_eq!(user.credentials.groups, [12, 100].map(Gid::from_raw), "mailman is somebody else");
    }

    #[test]
    fn an_unknown_number_has_a_group_of_its_own() {
        let user = find(4711, PASSWD, GROUP);
        assert_eq!((user.name.as_str(), user.home.as_str()), ("4711", "/"));
        assert_eq!(user.credentials.groups, [Gid::from_raw(4711)]);
    }
}
