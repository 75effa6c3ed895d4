//! `bpctl completions`: for all commands at once, or for one, as packages have them; from the definitions of their flags.

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};

/// What there are completions for.
pub(super) const COMMANDS: [&str; 4] = ["bpsh", "bpcp", "bpstat", "bpctl"];

/// A script that the shell reads: of one command, or of all of them.
pub(super) fn script(shell: Shell, wanted: Option<&str>) -> Vec<u8> {
    let all = [
        ("bpsh", crate::bpsh::flags::definition()),
        ("bpcp", crate::bpcp::flags::definition()),
        ("bpstat", crate::bpstat::definition()),
        ("bpctl", super::flags::Flags::command()),
    ];
    let mut script = Vec::new();
    for (name, command) in all.into_iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name)) {
        // Without what is for the commands themselves.
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned();
        let mut shown = Command::new(name)
            .version(env!("CARGO_PKG_VERSION"))
            .disable_version_flag(command.is_disable_version_flag_set())
            .args(shown)
            .subcommands(command.get_subcommands().cloned());
        generate(shell, &mut shown, name, &mut script);
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_its_flags_are_in_every_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell, None)).unwrap();
            for word in ["bpsh", "bpcp", "bpstat", "bpctl", "gather", "preserve", "by-status", "doctor", "unavailable"]
            {
                assert!(script.contains(word), "{word} for {shell}");
            }
            assert!(!script.contains("detached"), "what is hidden is not offered");
        }
    }

    #[test]
    fn of_one_command_there_is_nothing_else() {
        for name in COMMANDS {
            let script = String::from_utf8(script(Shell::Zsh, Some(name))).unwrap();
            assert!(script.starts_with(&format!("#compdef {name}\n")), "{script}");
            assert_eq!(script.matches("#compdef").count(), 1);
        }
    }
}
