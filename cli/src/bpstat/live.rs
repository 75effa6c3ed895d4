//! `bpstat -U`: shows the nodes anew when ghostd says that they have changed.
//!
//! Nothing is asked in between: ghostd answers when it has news, and with the newest state. When ghostd is started again, this goes on.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use ghost_proto::client::{ClientToMaster, MasterToClient, NodeInfo, Watch};
use ghost_proto::instance::Instance;

use crate::connection::{Connection, ConnectionError};
use crate::node_list::NodeList;

/// Between two attempts to reach a ghostd that has gone.
const PAUSE: Duration = Duration::from_millis(500);

/// Until standard output is closed, or for ever. `text` is what is shown of the nodes.
pub(super) fn run(
    mut connection: Connection,
    instance: &Instance,
    list: Option<&NodeList>,
    mut text: impl FnMut(Vec<NodeInfo>) -> String,
) -> anyhow::Result<()> {
    let terminal = io::stdout().is_terminal();
    let mut last = None;
    loop {
        let nodes = list.map_or_else(String::new, |list| list.text().to_owned());
        match connection.request(ClientToMaster::Watch(Watch { nodes })) {
            Ok(MasterToClient::Nodes(reply)) => {
                // What has changed may not be in this form.
                let text = Some(text(reply.nodes));
                if text != last {
                    show(text.as_deref().unwrap_or_default(), terminal)?;
                    last = text;
                }
            }
            Ok(_) => bail!("ghostd answered something else than was asked"),
            Err(ConnectionError::Refused(refused)) => {
                bail!(list.map_or_else(|| refused.text.clone(), |list| list.explain(&refused)))
            }
            Err(ConnectionError::Closed | ConnectionError::Lost(_)) => {
                crate::complain("bpstat: ghostd has gone; waiting until it is back");
                connection = loop {
                    std::thread::sleep(PAUSE);
                    match Connection::open(instance, "bpstat") {
                        Ok(connection) => break connection,
                        Err(ConnectionError::Unreachable { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn show(text: &str, terminal: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let text = if terminal { screen(text) } else { text.to_owned() };
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// The text in place of what the screen shows: from its first line on, each line and what is below it wiped (console_codes(4)).
fn screen(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_has_nothing_left_of_the_one_before() {
        assert_eq!(screen("Node\n0\n"), "\x1b[HNode\x1b[K\n0\x1b[K\n\x1b[J");
    }
}
