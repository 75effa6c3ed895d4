//! Asks ghostd to change nodes, step by step; what fails is told, and the next step is taken.

use ghost_proto::client::{Change, ClientToMaster, MasterToClient};
use ghost_proto::instance::Instance;

use super::steps::Step;
use super::{BROKEN, Failure, REFUSED, USAGE};
use crate::bpsh::report::fold_lines;
use crate::connection::{Connection, ConnectionError};
use crate::node_list::NodeList;

/// Takes the steps. The lists are looked at first: of a command line that is wrong nothing is done.
pub(super) fn run(steps: Vec<Step>, instance: &Instance) -> Result<(), Failure> {
    let read = |step: Step| match NodeList::read(&step.nodes, instance) {
        Ok(list) => Ok((step, list)),
        Err(error) => Err(Failure { code: USAGE, text: error.to_string() }),
    };
    let steps = steps.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut connection = None;
    let mut failed = false;
    for (Step { what, change, .. }, list) in steps {
        let mut asked = match connection.take() {
            Some(connection) => connection,
            None => Connection::open(instance, "bpctl")?,
        };
        let request = Change { nodes: list.text().to_owned(), change: Some(change) };
        match asked.request(ClientToMaster::Change(request)) {
            Ok(MasterToClient::Changed(changed)) => {
                let lines =
                    changed.failures.into_iter().map(|failure| (failure.node, format!("{what}: {}", failure.text)));
                for line in fold_lines(lines) {
                    failed = true;
                    crate::complain(&format!("bpctl: {line}"));
                }
                connection = Some(asked);
            }
            Err(ConnectionError::Refused(refused)) => {
                failed = true;
                let said = list.explain(&refused);
                let said = if refused.position.is_some() { said } else { format!("{what}: {said}") };
                crate::complain(&format!("bpctl: {said}"));
            }
            Ok(other) => {
                let text = format!("ghostd gave an answer that does not fit: {other:?}");
                return Err(Failure { code: BROKEN, text });
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed { Err(Failure { code: REFUSED, text: String::new() }) } else { Ok(()) }
}
