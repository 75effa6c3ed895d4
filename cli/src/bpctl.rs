//! `bpctl`: administration of the cluster. It asks; ghostd decides, by the user that the kernel says is asking.
//!
//! Exit status: 0 done, 1 refused, 2 wrong usage, 125 ghostd could not be asked.

pub mod flags;

mod change;
mod completions;
mod doctor;
mod listing;
mod metrics;
mod steps;
mod validity;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use ghost_proto::client::{
    Admin, AdminReply, AdminRequest, ClientToMaster, ExamineRequest, HandoverRequest, MasterToClient, NodeRequest,
    NodesReply, NodesRequest, TokenRequest, ViewRequest,
};
use ghost_proto::instance::Instance;
use ghost_proto::metrics::MetricsRequest;

use crate::connection::{self, Connection, ConnectionError};
use crate::node_list::NodeList;
use flags::{Action, Flags, NodesAction, Switch};

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const BROKEN: u8 = 125;
/// How long each step of a handover may take.
const HANDOVER: Duration = Duration::from_secs(30);

/// Runs the command.
pub fn main() -> ExitCode {
    let matches = Flags::command().get_matches();
    let run = || {
        let flags =
            Flags::from_arg_matches(&matches).map_err(|error| Failure { code: USAGE, text: error.to_string() })?;
        let steps = steps::of(&matches).map_err(|text| Failure { code: USAGE, text })?;
        run(&flags, steps)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            // What has been said already is not said again.
            if !text.is_empty() {
                crate::complain(&format!("bpctl: {text}"));
            }
            ExitCode::from(code)
        }
    }
}

/// What to say, and the exit status.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Failure {
        let code = if matches!(error, ConnectionError::Refused(_)) { REFUSED } else { BROKEN };
        Failure { code, text: error.to_string() }
    }
}

fn run(flags: &Flags, steps: Vec<steps::Step>) -> Result<(), Failure> {
    let usage = |text: String| Failure { code: USAGE, text };
    let instance = connection::instance(flags.instance.as_deref()).map_err(|error| usage(error.to_string()))?;
    let action = match &flags.action {
        Some(_) if !steps.is_empty() => {
            return Err(usage("options that change nodes stand alone, without a command such as `nodes`".to_owned()));
        }
        None if steps.is_empty() => {
            return Err(usage("nothing is to be done; `bpctl --help` shows what can be".to_owned()));
        }
        None => return change::run(steps, &instance),
        Some(action) => action,
    };
    let request = match understand(action, &instance)? {
        Task::Ask(request) => request,
        Task::Write(text) => return write(&text),
    };
    if let Action::Doctor { all } = action {
        return doctor::run(&instance, request, *all);
    }
    if let Action::Metrics = action {
        return metrics::run(&instance, request);
    }
    let mut connection = Connection::open(&instance, "bpctl")?;
    let lines = match connection.request(request)? {
        MasterToClient::Admin(AdminReply { .. }) if matches!(action, Action::Handover) => {
            vec![see_the_next(&instance, connection)?]
        }
        MasterToClient::Admin(AdminReply { lines, .. }) => lines,
        MasterToClient::Nodes(NodesReply { nodes }) => listing::table(&nodes),
        other => {
            return Err(Failure { code: BROKEN, text: format!("ghostd gave an answer that does not fit: {other:?}") });
        }
    };
    print(&lines)?;
    if let Action::Token(_) = action
        && std::io::stdout().is_terminal()
    {
        crate::complain("On the new node, as root: nodeagent join MASTER, and paste this line. It is a secret.");
    }
    Ok(())
}

fn print(lines: &[String]) -> Result<(), Failure> {
    write(lines.iter().flat_map(|line| [line, "\n"]).collect::<String>().as_bytes())
}

fn write(text: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text).and_then(|()| out.flush());
    written.map_err(|error| Failure { code: BROKEN, text: format!("standard output: {}", connection::plain(&error)) })
}

/// Waits until another ghostd answers in this one's place.
fn see_the_next(instance: &Instance, mut connection: Connection) -> Result<String, Failure> {
    let before = connection.program().to_owned();
    let comes = |why: ConnectionError| {
        let text = format!("{before} has handed over, but the next ghostd does not answer: {why}; see its log");
        Failure { code: BROKEN, text }
    };
    connection.until_closed(HANDOVER).map_err(comes)?;
    let mut next = Connection::open(instance, "bpctl").map_err(comes)?;
    let greeting = ClientToMaster::Nodes(NodesRequest::default());
    next.request_within(greeting, Some(HANDOVER)).map_err(comes)?;
    Ok(format!("{before} has handed over to {}", next.program()))
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Task {
    Ask(ClientToMaster),
    Write(Vec<u8>),
}

/// What to ask ghostd; node lists are looked at here first, so that a mistake is shown where it is.
fn understand(action: &Action, instance: &Instance) -> Result<Task, Failure> {
    let check = |list: &str| match NodeList::read(list, instance) {
        Ok(list) => Ok(NodeRequest { nodes: list.text().to_owned() }),
        Err(error) => Err(Failure { code: USAGE, text: error.to_string() }),
    };
    let admin = match action {
        Action::Token(token) => {
            let nodes = token.nodes.as_deref().map(check).transpose()?.map(|request| request.nodes).unwrap_or_default();
            let expires_s = token.expires.map_or(0, |validity| validity.as_secs());
            Admin::Token(TokenRequest { nodes, uses: token.uses.unwrap_or(0), expires_s })
        }
        Action::Nodes(NodesAction::List { nodes }) => {
            let nodes = nodes.as_deref().map(check).transpose()?.map(|request| request.nodes).unwrap_or_default();
            return Ok(Task::Ask(ClientToMaster::Nodes(NodesRequest { nodes, ..NodesRequest::default() })));
        }
        Action::Nodes(NodesAction::Add { nodes }) => Admin::AddNodes(check(nodes)?),
        Action::Nodes(NodesAction::Remove { nodes }) => Admin::RemoveNodes(check(nodes)?),
        Action::Nodes(NodesAction::Revoke { nodes }) => Admin::RevokeNodes(check(nodes)?),
        Action::Nodes(NodesAction::Replace { nodes }) => Admin::ReplaceNodes(check(nodes)?),
        Action::Completions { shell, command } => {
            return Ok(Task::Write(completions::script(*shell, command.as_deref())));
        }
        Action::Metrics => return Ok(Task::Ask(ClientToMaster::Metrics(MetricsRequest {}))),
        Action::Doctor { .. } => Admin::Examine(ExamineRequest {}),
        Action::Handover => Admin::Handover(HandoverRequest {}),
        Action::View { state } => Admin::View(ViewRequest { on: *state == Switch::On }),
    };
    Ok(Task::Ask(ClientToMaster::Admin(AdminRequest { admin: Some(admin) })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn asked(arguments: &[&str]) -> Result<ClientToMaster, u8> {
        let flags = Flags::try_parse_from(arguments).map_err(|_| USAGE)?;
        match understand(&flags.action.ok_or(USAGE)?, &Instance::default()).map_err(|failure| failure.code)? {
            Task::Ask(request) => Ok(request),
            Task::Write(text) => panic!("nothing is asked, but written: {text:?}"),
        }
    }

    fn admin(admin: Admin) -> Result<ClientToMaster, u8> {
        Ok(ClientToMaster::Admin(AdminRequest { admin: Some(admin) }))
    }

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let nodes = |nodes: &str| NodeRequest { nodes: nodes.to_owned() };
        assert_eq!(asked(&["bpctl", "token"]), admin(Admin::Token(TokenRequest::default())));
        assert_eq!(
            asked(&["bpctl", "token", "--nodes", "0-63", "--uses", "3", "--expires", "2h"]),
            admin(Admin::Token(TokenRequest { nodes: "0-63".into(), uses: 3, expires_s: 7200 }))
        );
        assert_eq!(asked(&["bpctl", "nodes", "add", "0-3"]), admin(Admin::AddNodes(nodes("0-3"))));
        assert_eq!(asked(&["bpctl", "nodes", "remove", "3"]), admin(Admin::RemoveNodes(nodes("3"))));
        assert_eq!(asked(&["bpctl", "nodes", "revoke", "3"]), admin(Admin::RevokeNodes(nodes("3"))));
        assert_eq!(asked(&["bpctl", "nodes", "replace", "3"]), admin(Admin::ReplaceNodes(nodes("3"))));
        assert_eq!(asked(&["bpctl", "view", "on"]), admin(Admin::View(ViewRequest { on: true })));
        assert_eq!(asked(&["bpctl", "view", "off"]), admin(Admin::View(ViewRequest { on: false })));
        assert_eq!(asked(&["bpctl", "doctor", "--all"]), admin(Admin::Examine(ExamineRequest {})));
        assert_eq!(asked(&["bpctl", "metrics"]), Ok(ClientToMaster::Metrics(MetricsRequest {})));
        assert_eq!(asked(&["bpctl", "handover"]), admin(Admin::Handover(HandoverRequest {})));
        assert_eq!(asked(&["bpctl", "nodes", "list"]), Ok(ClientToMaster::Nodes(NodesRequest::default())));
        let up = ClientToMaster::Nodes(NodesRequest { nodes: "up".into(), ..NodesRequest::default() });
        assert_eq!(asked(&["bpctl", "nodes", "list", "up"]), Ok(up));
    }

    #[test]
    fn mistakes_are_found_before_ghostd_is_asked() {
        for wrong in [
            &["bpctl"][..],
            &["bpctl", "nodes", "add"],
            &["bpctl", "view"],
            &["bpctl", "view", "maybe"],
            &["bpctl", "nodes", "add", "3-1"],
            &["bpctl", "nodes", "revoke", "é"],
            &["bpctl", "token", "--nodes", ""],
            &["bpctl", "token", "--uses", "0"],
            &["bpctl", "token", "--uses", "-1"],
            &["bpctl", "token", "--expires", "soon"],
            &["bpctl", "token", "--expires", "0"],
        ] {
            assert_eq!(asked(wrong), Err(USAGE), "{wrong:?}");
        }
    }
}
