//! `bpctl metrics`: what ghostd counts. Whoever may use the cluster may know it.

use std::time::Duration;

use ghost_proto::client::{ClientToMaster, MasterToClient};
use ghost_proto::instance::Instance;
use ghost_proto::metrics::{FEATURE, MetricsReply};

use super::{BROKEN, Failure, REFUSED};
use crate::connection::Connection;

/// Longer than a ghostd that works takes; who collects figures has better to do than to wait for one that does not.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn run(instance: &Instance, request: ClientToMaster) -> Result<(), Failure> {
    let mut connection = Connection::open(instance, "bpctl")?;
    if !connection.has(FEATURE)? {
        let ghostd = connection.program();
        let text = format!("the ghostd that runs ({ghostd}) tells none; `bpctl handover` lets the installed one go on");
        return Err(Failure { code: REFUSED, text });
    }
    match connection.request_within(request, Some(ANSWER))? {
        MasterToClient::Metrics(MetricsReply { text }) => super::write(text.as_bytes()),
        other => Err(Failure { code: BROKEN, text: format!("ghostd gave an answer that does not fit: {other:?}") }),
    }
}
