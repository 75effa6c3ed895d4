//! `bpctl nodes list`: one line a node.

use ghost_proto::client::NodeInfo;
use ghost_proto::ids::NodeNumber;

const HEAD: [&str; 5] = ["Node", "Status", "Address", "Host", "Reason"];

/// The table's lines, its head first; columns as wide as they must be, nothing at the ends of lines.
pub fn table(nodes: &[NodeInfo]) -> Vec<String> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(nodes.iter().map(|node| {
        let number = if node.node == NodeNumber::MASTER.0 { "master".to_owned() } else { node.node.to_string() };
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        [number, node.status.clone(), or_dash(&node.address), or_dash(&node.hostname), node.reason.clone()]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let up = NodeInfo {
            node: 0,
            status: "up".into(),
            address: "10.0.0.10".into(),
            hostname: "n0".into(),
            ..NodeInfo::default()
        };
        let down = NodeInfo { node: 12, status: "down".into(), reason: "has not joined".into(), ..NodeInfo::default() };
        let master = NodeInfo { node: -1, status: "up".into(), ..NodeInfo::default() };
        assert_eq!(
            table(&[master, up, down]),
            [
                "Node    Status  Address    Host  Reason",
                "master  up      -          -",
                "0       up      10.0.0.10  n0",
                "12      down    -          -     has not joined",
            ]
        );
    }
}
