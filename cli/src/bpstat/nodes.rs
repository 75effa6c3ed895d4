//! Tables of nodes. Pure.

use ghost_proto::client::NodeInfo;
use ghost_proto::node_state::NodeStatus;
use ghost_proto::nodeset::fold_set;
use serde::Serialize;

/// Names of users and groups, as far as they are known.
pub trait Names {
    fn user(&mut self, uid: u32) -> String;
    fn group(&mut self, gid: u32) -> String;
}

/// In which order nodes are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    #[default]
    Number,
    /// By status, then by number.
    Status,
    /// As they were asked for.
    Given,
}

/// Puts nodes in order.
pub fn sort(nodes: &mut [NodeInfo], order: Order, reverse: bool) {
    let status = |node: &NodeInfo| {
        let known = NodeStatus::ALL.iter().position(|status| status.name() == node.status);
        known.unwrap_or(NodeStatus::ALL.len())
    };
    match order {
        Order::Number => nodes.sort_by_key(|node| node.node),
        Order::Status => nodes.sort_by_key(|node| (status(node), node.node)),
        Order::Given => {}
    }
    if reverse {
        nodes.reverse();
    }
}

/// The compact table: nodes that are alike share a row.
pub fn compact(nodes: &[NodeInfo], names: &mut impl Names) -> String {
    let mut rows: Vec<(Vec<i32>, [String; 5])> = Vec::new();
    for node in nodes {
        let columns = columns(node, names);
        match rows.iter_mut().find(|(_, known)| *known == columns) {
            Some((numbers, _)) => numbers.push(node.node),
            None => rows.push((vec![node.node], columns)),
        }
    }
    let rows = rows.into_iter().map(|(numbers, columns)| {
        let mut row = vec![fold_set(numbers)];
        row.extend(columns);
        row
    });
    table(with_reason(nodes, &["Node(s)", "Status", "Mode", "User", "Group", "Reason"]), rows)
}

/// One row a node, with its address, name and load.
pub fn long(nodes: &[NodeInfo], names: &mut impl Names) -> String {
    let rows = nodes.iter().map(|node| {
        let host = if node.hostname.is_empty() { "-" } else { &node.hostname };
        let mut row = vec![node.node.to_string(), address(node).to_owned()];
        let [status, mode, user, group, reason] = columns(node, names);
        let [load, memory, processes] = figures(node);
        row.extend([status, mode, user, group, host.to_owned(), load, memory, processes, reason]);
        row
    });
    let head = ["Node", "Address", "Status", "Mode", "User", "Group", "Host", "Load", "Memory", "Processes", "Reason"];
    table(with_reason(nodes, &head), rows)
}

/// The node's load average of a minute, its memory in use and in all, and the cluster's processes; what is not known is `-`.
fn figures(node: &NodeInfo) -> [String; 3] {
    let dash = || "-".to_owned();
    let processes = if node.status == "down" { dash() } else { node.processes.to_string() };
    if node.mem_total_kib == 0 {
        return [dash(), dash(), processes];
    }
    let gib = |kib: u64| kib as f64 / f64::from(1 << 20);
    let used = node.mem_total_kib.saturating_sub(node.mem_available_kib);
    let load = f64::from(node.load_centi) / 100.0;
    [format!("{load:.2}"), format!("{:.1}/{:.1}G", gib(used), gib(node.mem_total_kib)), processes]
}

/// Everything, for programs.
pub fn json(nodes: &[NodeInfo], names: &mut impl Names) -> String {
    #[derive(Serialize)]
    struct Node<'a> {
        node: i32,
        name: &'a str,
        address: &'a str,
        status: &'a str,
        mode: String,
        user: String,
        uid: u32,
        group: String,
        gid: u32,
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        root: &'a str,
        /// Of the last minute.
        #[serde(skip_serializing_if = "Option::is_none")]
        load: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory_kib: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory_available_kib: Option<u64>,
        /// Of the cluster.
        processes: u32,
    }
    let known = |node: &NodeInfo| node.mem_total_kib != 0;
    #[derive(Serialize)]
    struct Nodes<'a> {
        version: u32,
        nodes: Vec<Node<'a>>,
    }
    let node = |node: &'_ NodeInfo| (names.user(node.uid), names.group(node.gid));
    let accounts: Vec<(String, String)> = nodes.iter().map(node).collect();
    let nodes = nodes.iter().zip(accounts).map(|(node, (user, group))| Node {
        node: node.node,
        name: &node.hostname,
        address: &node.address,
        status: &node.status,
        mode: format!("{:04o}", node.mode),
        user,
        uid: node.uid,
        group,
        gid: node.gid,
        reason: &node.reason,
        root: &node.root,
        load: known(node).then(|| f64::from(node.load_centi) / 100.0),
        memory_kib: known(node).then_some(node.mem_total_kib),
        memory_available_kib: known(node).then_some(node.mem_available_kib),
        processes: node.processes,
    });
    // Strings and numbers: nothing in it can fail to be written.
    serde_json::to_string(&Nodes { version: 1, nodes: nodes.collect() }).unwrap_or_default() + "\n"
}

/// One figure of each node, a line each.
pub fn single(nodes: &[NodeInfo], figure: impl Fn(&NodeInfo) -> String) -> String {
    nodes.iter().map(|node| figure(node) + "\n").collect()
}

/// A node's address, `-` if it has never connected.
pub fn address(node: &NodeInfo) -> &str {
    if node.address.is_empty() { "-" } else { &node.address }
}

/// A table in which no node has a reason has no such column, the last.
fn with_reason<'a>(nodes: &[NodeInfo], head: &'a [&'a str]) -> &'a [&'a str] {
    let has = nodes.iter().any(|node| !node.reason.is_empty());
    if has { head } else { &head[..head.len() - 1] }
}

/// The reason is why a node is not up.
fn columns(node: &NodeInfo, names: &mut impl Names) -> [String; 5] {
    [node.status.clone(), mode(node.mode), names.user(node.uid), names.group(node.gid), node.reason.clone()]
}

/// Permission bits as ls shows them.
pub fn mode(bits: u32) -> String {
    let mut text = String::from("-");
    for (place, letter) in (0..9).rev().zip("rwx".chars().cycle()) {
        text.push(if bits >> place & 1 != 0 { letter } else { '-' });
    }
    text
}

/// Left-aligned columns as wide as they need to be, two blanks apart, no blanks at the ends of lines.
pub fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|title| (*title).to_owned()).collect()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|text| text.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root;

    impl Names for Root {
        fn user(&mut self, uid: u32) -> String {
            if uid == 0 { "root".to_owned() } else { uid.to_string() }
        }
        fn group(&mut self, gid: u32) -> String {
            self.user(gid)
        }
    }

    fn node(node: i32, status: &str, mode: u32) -> NodeInfo {
        let address = if status == "up" { format!("10.0.0.{}", node + 1) } else { String::new() };
        let reason = if status == "up" { String::new() } else { "not connected".to_owned() };
        let hostname = if status == "up" { format!("n{node}") } else { String::new() };
        NodeInfo { node, status: status.to_owned(), mode, address, reason, hostname, ..NodeInfo::default() }
    }

    fn cluster() -> Vec<NodeInfo> {
        let mut nodes: Vec<NodeInfo> = [4, 0, 1, 3, 2].map(|number| node(number, "up", 0o111)).to_vec();
        nodes.push(node(5, "down", 0));
        sort(&mut nodes, Order::Number, false);
        nodes
    }

    #[test]
    fn the_compact_table_folds_what_is_alike() {
        let expected = "\
Node(s)  Status  Mode        User  Group  Reason
0-4      up      ---x--x--x  root  root
5        down    ----------  root  root   not connected
";
        assert_eq!(compact(&cluster(), &mut Root), expected);
        let expected = "\
Node(s)  Status  Mode        User  Group
0-4      up      ---x--x--x  root  root
";
        assert_eq!(compact(&cluster()[..5], &mut Root), expected);
    }

    #[test]
    fn the_long_table_has_addresses() {
        let expected = "\
Node  Address   Status  Mode        User  Group  Host  Load  Memory    Processes  Reason
5     -         down    ----------  root  root   -     -     -         -          not connected
1     10.0.0.2  up      ---x--x--x  root  root   n1    -     -         0
0     10.0.0.1  up      ---x--x--x  root  root   n0    1.50  1.5/8.0G  12
";
        let loaded = NodeInfo {
            load_centi: 150,
            mem_total_kib: 8 << 20,
            mem_available_kib: 13 << 19,
            processes: 12,
            ..node(0, "up", 0o111)
        };
        assert_eq!(long(&[node(5, "down", 0), node(1, "up", 0o111), loaded], &mut Root), expected);
    }

    #[test]
    fn modes_are_shown_as_of_files() {
        for (bits, text) in [(0o111, "---x--x--x"), (0, "----------"), (0o750, "-rwxr-x---"), (0o7777, "-rwxrwxrwx")] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn orders() {
        let mut nodes = [node(4, "up", 0), node(0, "error", 0), node(3, "up", 0), node(7, "down", 0)];
        for (order, reverse, expected) in [
            (Order::Given, false, [4, 0, 3, 7]),
            (Order::Given, true, [7, 3, 0, 4]),
            (Order::Status, false, [7, 3, 4, 0]),
            (Order::Number, false, [0, 3, 4, 7]),
            (Order::Number, true, [7, 4, 3, 0]),
        ] {
            sort(&mut nodes, order, reverse);
            assert_eq!(nodes.each_ref().map(|node| node.node), expected, "{order:?} {reverse}");
        }
    }

    #[test]
    fn everything_as_json() {
        let expected = concat!(
            r#"{"version":1,"nodes":[{"node":0,"name":"n0","address":"10.0.0.1","status":"up","mode":"0111","user":"root","#,
            r#""uid":0,"group":"root","gid":0,"load":1.5,"memory_kib":4096,"memory_available_kib":1024,"processes":12},"#,
            r#"{"node":5,"name":"","address":"","status":"down","mode":"0000","user":"root","#,
            r#""uid":0,"group":"root","gid":0,"reason":"not connected","root":"/srv","processes":0}]}"#,
            "\n"
        );
        let figures = NodeInfo {
            load_centi: 150,
            mem_total_kib: 4096,
            mem_available_kib: 1024,
            processes: 12,
            ..node(0, "up", 0o111)
        };
        let rooted = NodeInfo { root: "/srv".to_owned(), ..node(5, "down", 0) };
        assert_eq!(json(&[figures, rooted], &mut Root), expected);
    }

    #[test]
    fn single_figures() {
        assert_eq!(single(&cluster(), |node| node.node.to_string()), "0\n1\n2\n3\n4\n5\n");
        assert_eq!(single(&cluster()[4..], |node| address(node).to_owned()), "10.0.0.5\n-\n");
    }
}
