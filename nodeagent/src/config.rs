//! The node's configuration file, `/etc/INSTANCE/nodeagent.toml`. There need not be one.
//!
//! Invariant: what the file says is either taken or an error with file and line.

use std::io::ErrorKind;

use anyhow::{Context, Result, anyhow};
use ghost_proto::instance::Instance;
use serde::Deserialize;

/// What an administrator of the node can say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Shell commands that restart, halt and switch off this node, when root of the master orders it.
    pub reboot_command: String,
    pub halt_command: String,
    pub poweroff_command: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            reboot_command: "systemctl reboot".to_owned(),
            halt_command: "systemctl halt".to_owned(),
            poweroff_command: "systemctl poweroff".to_owned(),
        }
    }
}

impl Config {
    /// Reads the file; without one, the defaults.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn load(instance: &Instance) -> Result<Config> {
        let path = instance.etc().join("nodeagent.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).map_err(|(line, why)| anyhow!("{}:{line}: {why}", path.display())),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(Config::default()),
            Err(why) => Err(why).with_context(|| path.display().to_string()),
        }
    }
}

impl Config {
    /// What another one changes, key by key, for the log.
    pub fn changes(&self, new: &Config) -> Vec<String> {
        let Config { reboot_command, halt_command, poweroff_command } = self;
        [
            ("reboot_command", reboot_command, &new.reboot_command),
            ("halt_command", halt_command, &new.halt_command),
            ("poweroff_command", poweroff_command, &new.poweroff_command),
        ]
        .into_iter()
        .filter(|(_, from, to)| from != to)
        .map(|(key, from, to)| format!("{key}: {from:?} -> {to:?}"))
        .collect()
    }
}

fn parse(text: &str) -> Result<Config, (usize, String)> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        (line, error.message().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_usual_and_a_mistake_has_its_line() {
        assert_eq!(parse(""), Ok(Config::default()));
        let config = parse("reboot_command = \"touch /reboot\"").expect("a configuration");
        assert_eq!((config.reboot_command.as_str(), config.halt_command.as_str()), ("touch /reboot", "systemctl halt"));
        let (line, why) = parse("\nhalt_command = \"x\"\nreboot = \"x\"\n").expect_err("an unknown key");
        assert_eq!(line, 3);
        assert!(why.contains("`reboot`") && why.contains("reboot_command"), "{why}");
        assert_eq!(parse("halt_command = 3").expect_err("no text").0, 1);
    }

    #[test]
    fn a_change_is_told_with_both_values() {
        let new = parse("halt_command = \"poweroff -f\"").unwrap();
        assert_eq!(Config::default().changes(&new), [r#"halt_command: "systemctl halt" -> "poweroff -f""#]);
        assert!(new.changes(&new).is_empty());
    }

    #[test]
    fn the_manual_tells_of_every_key() {
        let manual = include_str!("../manual/nodeagent.toml.txt");
        for key in ["reboot_command", "halt_command", "poweroff_command"] {
            assert!(manual.contains(&format!("`{key}`:: ")), "{key}");
        }
    }
}
