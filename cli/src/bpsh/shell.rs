//! No command: the user's shell. It begins where this one is, with its environment: as a shell that is started here, not as a login.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// `$SHELL`, else what /etc/passwd has for this user, else `/bin/sh`.
pub fn of_user() -> OsString {
    let accounts = || std::fs::read("/etc/passwd").unwrap_or_default();
    choose(std::env::var_os("SHELL"), accounts, nix::unistd::getuid().as_raw())
}

fn choose(named: Option<OsString>, accounts: impl FnOnce() -> Vec<u8>, uid: u32) -> OsString {
    let named = named.filter(|shell| shell.as_bytes().starts_with(b"/"));
    named.or_else(|| find(&accounts(), uid)).unwrap_or_else(|| "/bin/sh".into())
}

/// The last field of the user's line, see passwd(5).
fn find(accounts: &[u8], uid: u32) -> Option<OsString> {
    let uid = uid.to_string();
    accounts.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let shell = fields.get(6).filter(|shell| shell.starts_with(b"/"))?;
        (fields.get(2) == Some(&uid.as_bytes())).then(|| OsString::from_vec(shell.to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_shell() {
        let accounts = || b"root:x:0:0:root:/root:/bin/zsh\nme:x:7:7::/:\n".to_vec();
        for (named, uid, expected) in [
            (Some("/bin/fish"), 0, "/bin/fish"),
            (None, 0, "/bin/zsh"),
            (Some("fish"), 0, "/bin/zsh"),
            (None, 7, "/bin/sh"),
            (None, 8, "/bin/sh"),
        ] {
            assert_eq!(choose(named.map(OsString::from), accounts, uid), expected);
        }
    }
}
