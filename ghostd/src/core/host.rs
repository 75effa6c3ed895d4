//! Programs in a node's own namespaces (`bpsh --host`): root's, where the holder has them.

use ghost_proto::client::{Obstacle, RankPlan};
use ghost_proto::ids::NodeNumber;

use super::{Core, Node};

impl Core {
    /// Who may not, and nodes that cannot.
    pub(super) fn plan_host(&self, plans: &mut [RankPlan], uid: u32) {
        if uid == 0 {
            let reason =
                "--host: its nodeagent is older than this, or could not open its own namespaces, which its log says";
            return self.plan_able(plans, |node| node.enters_host, reason);
        }
        for plan in plans.iter_mut().filter(|plan| plan.reason.is_empty()) {
            plan.obstacle = Obstacle::Forbidden.into();
            plan.reason = "--host is root's alone".to_owned();
        }
    }

    /// Of the nodes on which something was to run only those stay that can do what it needs.
    pub(super) fn plan_able(&self, plans: &mut [RankPlan], is_able: impl Fn(&Node) -> bool, reason: &str) {
        for plan in plans.iter_mut().filter(|plan| plan.reason.is_empty()) {
            if !self.nodes.get(&NodeNumber(plan.node)).is_some_and(&is_able) {
                plan.obstacle = Obstacle::Other.into();
                plan.reason = reason.to_owned();
            }
        }
    }
}
