//! Whether output is coloured: on a terminal, unless the environment says otherwise. Pure but for [`wanted`].
//!
//! NO_COLOR goes before CLICOLOR_FORCE, that before CLICOLOR.

use std::ffi::OsString;
use std::io::IsTerminal;

/// For this process's standard output.
pub fn wanted() -> bool {
    decide(|name| std::env::var_os(name), std::io::stdout().is_terminal())
}

fn decide(variable: impl Fn(&str) -> Option<OsString>, terminal: bool) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    let dumb = set("TERM").is_none_or(|term| term == "dumb");
    terminal && !dumb && set("CLICOLOR").is_none_or(|value| value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_terminal() {
        for (variables, terminal, expected) in [
            (&[("TERM", "xterm")][..], true, true),
            (&[("TERM", "xterm")], false, false),
            (&[("TERM", "dumb")], true, false),
            (&[], true, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "")], true, true),
            (&[("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0")], false, true),
            (&[("TERM", "xterm"), ("CLICOLOR", "0")], true, false),
            (&[("CLICOLOR_FORCE", "0")], false, false),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
            assert_eq!(decide(variable, terminal), expected, "{variables:?} {terminal}");
        }
    }
}
