//! Programs in a node's own namespaces (`bpsh --host`): root's, where the holder has them.

use ghost_proto::client::{Obstacle, RankPlan};

use super::Core;

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
}
