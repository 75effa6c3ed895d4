//! Programs in a node's own namespaces (`bpsh --host`): root's, where the holder has them.

use ghost_proto::client::{Obstacle, RankPlan};
use ghost_proto::ids::NodeNumber;

use super::Core;

impl Core {
    /// Who may not, and nodes that cannot.
    pub(super) fn plan_host(&self, plans: &mut [RankPlan], uid: u32) {
        for plan in plans.iter_mut().filter(|plan| plan.reason.is_empty()) {
            let able = self.nodes.get(&NodeNumber(plan.node)).is_some_and(|node| node.enters_host);
            let (obstacle, reason) = match able {
                _ if uid != 0 => (Obstacle::Forbidden, "--host is root's alone"),
                false => (
                    Obstacle::Other,
                    "--host: its nodeagent is older than this, or could not open its own namespaces, which its log says",
                ),
                true => continue,
            };
            plan.obstacle = obstacle.into();
            plan.reason = reason.to_owned();
        }
    }
}
