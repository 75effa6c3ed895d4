//! Tables of nodes. Pure.

use ghost_proto::client::NodeInfo;
use ghost_proto::nodeset::fold_set;

/// Names of users and groups, as far as they are known.
pub trait Names {
    fn user(&mut self, uid: u32) -> String;
    fn group(&mut self, gid: u32) -> String;
}

/// The compact table: nodes that are alike share a row.
pub fn compact(nodes: &[NodeInfo], names: &mut impl Names) -> String {
    let mut rows: Vec<(Vec<i32>, [String; 4])> = Vec::new();
    for node in sorted(nodes) {
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
    table(&["Node(s)", "Status", "Mode", "User", "Group"], rows)
}

/// One row a node, with its address.
pub fn long(nodes: &[NodeInfo], names: &mut impl Names) -> String {
    let rows = sorted(nodes).into_iter().map(|node| {
        let mut row = vec![node.node.to_string(), address(node).to_owned()];
        row.extend(columns(node, names));
        row
    });
    table(&["Node", "Address", "Status", "Mode", "User", "Group"], rows)
}

/// One figure of each node, a line each.
pub fn single(nodes: &[NodeInfo], figure: impl Fn(&NodeInfo) -> String) -> String {
    sorted(nodes).into_iter().map(|node| figure(node) + "\n").collect()
}

/// A node's address, `-` if it has never connected.
pub fn address(node: &NodeInfo) -> &str {
    if node.address.is_empty() { "-" } else { &node.address }
}

fn sorted(nodes: &[NodeInfo]) -> Vec<&NodeInfo> {
    let mut nodes: Vec<&NodeInfo> = nodes.iter().collect();
    nodes.sort_by_key(|node| node.node);
    nodes
}

fn columns(node: &NodeInfo, names: &mut impl Names) -> [String; 4] {
    [node.status.clone(), mode(node.mode), names.user(node.uid), names.group(node.gid)]
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
        NodeInfo { node, status: status.to_owned(), mode, address, ..NodeInfo::default() }
    }

    fn cluster() -> Vec<NodeInfo> {
        let mut nodes: Vec<NodeInfo> = [4, 0, 1, 3, 2].map(|number| node(number, "up", 0o111)).to_vec();
        nodes.push(node(5, "down", 0));
        nodes
    }

    #[test]
    fn the_compact_table_folds_what_is_alike() {
        let expected = "\
Node(s)  Status  Mode        User  Group
0-4      up      ---x--x--x  root  root
5        down    ----------  root  root
";
        assert_eq!(compact(&cluster(), &mut Root), expected);
    }

    #[test]
    fn the_long_table_has_addresses() {
        let expected = "\
Node  Address   Status  Mode        User  Group
0     10.0.0.1  up      ---x--x--x  root  root
5     -         down    ----------  root  root
";
        assert_eq!(long(&[node(5, "down", 0), node(0, "up", 0o111)], &mut Root), expected);
    }

    #[test]
    fn modes_are_shown_as_of_files() {
        for (bits, text) in [(0o111, "---x--x--x"), (0, "----------"), (0o750, "-rwxr-x---"), (0o7777, "-rwxrwxrwx")] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn single_figures() {
        assert_eq!(single(&cluster(), |node| node.node.to_string()), "0\n1\n2\n3\n4\n5\n");
        assert_eq!(single(&cluster()[4..], |node| address(node).to_owned()), "10.0.0.3\n-\n");
    }
}
