//! `bpstat -U`: shows the nodes anew when ghostd says that they have changed.
//!
//! Nothing is asked in between: ghostd answers when it has news, and with the newest state. When ghostd is started again, this goes on.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use ghost_proto::client::{self, ClientToMaster, MasterToClient, NodeInfo, Watch};
use ghost_proto::instance::Instance;
use ghost_sys::terminal::{self, Size};

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
        let answer = connection.has(client::WATCH).and_then(|knows| match knows {
            // One that does not know the request would never answer it.
            false => Ok(None),
            true => connection.request(ClientToMaster::Watch(Watch { nodes })).map(Some),
        });
        match answer {
            Ok(None) => {
                let ghostd = connection.program();
                bail!(
                    "-U: the ghostd that runs ({ghostd}) cannot tell of changes; `bpctl handover` lets the installed one go on"
                )
            }
            Ok(Some(MasterToClient::Nodes(reply))) => {
                // What has changed may not be in this form.
                let text = Some(text(reply.nodes));
                if text != last {
                    show(text.as_deref().unwrap_or_default(), terminal)?;
                    last = text;
                }
            }
            Ok(Some(_)) => bail!("ghostd answered something else than was asked"),
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
    let size = terminal::size(&output).unwrap_or_default();
    let text = if terminal { screen(text, size) } else { text.to_owned() };
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// The text in place of what the screen shows: from its first line on, each line and what is below it wiped (console_codes(4)). What has
/// no room in the window is cut off, since it would push the first lines out; a window without a size has room for all.
fn screen(text: &str, size: Size) -> String {
    let room = |n: u16| if n == 0 { usize::MAX } else { usize::from(n) };
    // The cursor stands in a line of its own.
    let (rows, columns) = (room(size.rows).saturating_sub(1).max(1), room(size.columns));
    let count = text.lines().count();
    let shown = if count <= rows { count } else { rows - 1 };
    let mut lines: Vec<String> = text.lines().take(shown).map(str::to_owned).collect();
    if shown < count {
        lines.push(format!("({} more lines)", count - shown));
    }
    let cut = |line: &String| line.chars().take(columns).collect::<String>() + "\x1b[K\n";
    format!("\x1b[H{}\x1b[J", lines.iter().map(cut).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(rows: u16, columns: u16) -> Size {
        Size { rows, columns, ..Size::default() }
    }

    #[test]
    fn a_screen_has_nothing_left_of_the_one_before() {
        assert_eq!(screen("Node\n0\n", window(0, 0)), "\x1b[HNode\x1b[K\n0\x1b[K\n\x1b[J");
    }

    #[test]
    fn what_has_no_room_does_not_push_the_rest_out() {
        let text = "Node  Status\n0-3   up\n4     down\n";
        for (rows, columns, wanted) in [
            (4, 12, &["Node  Status", "0-3   up", "4     down"][..]),
            (3, 80, &["Node  Status", "(2 more lines)"]),
            (2, 4, &["(3 m"]),
            (1, 1, &["("]),
            (4, 5, &["Node ", "0-3  ", "4    "]),
        ] {
            let lines: String = wanted.iter().map(|line| format!("{line}\x1b[K\n")).collect();
            assert_eq!(screen(text, window(rows, columns)), format!("\x1b[H{lines}\x1b[J"), "{rows} {columns}");
        }
    }
}
