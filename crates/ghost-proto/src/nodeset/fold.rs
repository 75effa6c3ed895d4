//! Nodes written as a list.

use crate::ids::NodeNumber;

/// Writes nodes as a list, runs of numbers as ranges: `0-4,7`. Order and repetitions are kept.
pub fn fold(nodes: &[NodeNumber]) -> String {
    let mut text = String::new();
    let mut rest = nodes;
    while let Some(&first) = rest.first() {
        let mut length = 1;
        // The master is not the beginning of a range: "-1-3" would be no item.
        if first > NodeNumber::MASTER {
            length += rest.windows(2).take_while(|pair| pair[0].0.checked_add(1) == Some(pair[1].0)).count();
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if length > 1 {
            text.push('-');
            text.push_str(&rest[length - 1].to_string());
        }
        rest = &rest[length..];
    }
    text
}

/// Writes a set of nodes as a list: in order, each once.
pub fn fold_set(nodes: impl IntoIterator<Item = i32>) -> String {
    let mut nodes: Vec<NodeNumber> = nodes.into_iter().map(NodeNumber).collect();
    nodes.sort_unstable();
    nodes.dedup();
    fold(&nodes)
}
