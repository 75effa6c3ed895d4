//! The pages of the commands are what their flags say.

use clap::{Command, CommandFactory};
use ghost_manual::{Section, keep_page, page};

#[track_caller]
fn kept(command: &Command, section: Section, text: &str) {
    keep_page(command.get_name(), section, &page(command, section, text)).unwrap();
}

#[test]
fn bpsh() {
    kept(&cli::bpsh::flags::definition(), Section::User, include_str!("../manual/bpsh.txt"));
}

#[test]
fn bpcp() {
    kept(&cli::bpcp::flags::definition(), Section::User, include_str!("../manual/bpcp.txt"));
}

#[test]
fn bpstat() {
    kept(&cli::bpstat::definition(), Section::User, include_str!("../manual/bpstat.txt"));
}

#[test]
fn bpctl() {
    kept(&cli::bpctl::flags::Flags::command(), Section::System, include_str!("../manual/bpctl.txt"));
}
