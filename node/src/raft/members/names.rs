//! Notices that another live node has this node's name.
//!
//! Names are for operators: nothing is decided by them, and a node that lost its disk comes back
//! under its name while its former self still counts as alive. So nobody is refused for a name.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::warn;

use super::leading::every;
use crate::raft::core::Core;
use crate::raft::state::{NodeId, State};

/// A node that was replaced is declared dead by so long after its lease.
const GRACE: Duration = Duration::from_secs(2);

/// The other live nodes that go by `name`.
pub(crate) fn namesakes<'a>(
    view: &'a State,
    me: NodeId,
    name: &'a str,
) -> impl Iterator<Item = NodeId> + 'a {
    let others = view.nodes().filter(move |(node, row)| *node != me && row.up.name == name);
    others.map(|(node, _row)| node).filter(|node| view.alive(*node).is_some())
}

/// Warns of each node that has this node's name and keeps it.
pub(super) async fn watch_names(core: &Core) {
    let mut ticks = every(core.cluster.lease + GRACE);
    let mut known = Known::default();
    loop {
        ticks.tick().await;
        let view = core.view.load();
        let name = &core.member.name;
        for other in known.look(namesakes(&view, core.me, name).collect()) {
            let address = view.node(other).map(|row| row.up.address.to_string());
            warn!(name, other, address, "another node has this node's name; set node.name");
        }
    }
}

/// The namesakes of the last look.
#[derive(Default)]
struct Known {
    seen: BTreeSet<NodeId>,
    told: BTreeSet<NodeId>,
}

impl Known {
    /// Those that were there at the last look already, each once for as long as it stays.
    fn look(&mut self, namesakes: BTreeSet<NodeId>) -> Vec<NodeId> {
        self.told.retain(|node| namesakes.contains(node));
        let stayed = self.seen.intersection(&namesakes).copied();
        let news: Vec<NodeId> = stayed.filter(|node| !self.told.contains(node)).collect();
        self.told.extend(&news);
        self.seen = namesakes;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namesake_is_told_of_once_if_it_stays() {
        let mut known = Known::default();
        let looks: [(&[NodeId], &[NodeId]); 7] = [
            // It may be the one that this node replaces.
            (&[7], &[]),
            (&[7], &[7]),
            (&[7, 8], &[]),
            (&[7, 8], &[8]),
            (&[8], &[]),
            // It went, and comes again.
            (&[7, 8], &[]),
            (&[7, 8], &[7]),
        ];
        for (namesakes, news) in looks {
            assert_eq!(known.look(namesakes.iter().copied().collect()), news);
        }
    }
}
