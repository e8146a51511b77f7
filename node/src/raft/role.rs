//! What this node is in raft, as its metrics say it.

use openraft::ServerState;

/// What a node is in raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    /// It stands for election.
    Candidate,
    /// It follows, and does not vote.
    Learner,
}

impl Role {
    pub(super) fn of(state: ServerState) -> Option<Self> {
        match state {
            ServerState::Leader => Some(Self::Leader),
            ServerState::Follower => Some(Self::Follower),
            ServerState::Candidate => Some(Self::Candidate),
            ServerState::Learner => Some(Self::Learner),
            ServerState::Shutdown => None,
        }
    }

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RAFT_ROLES;

    #[test]
    fn every_role_is_one_that_the_metric_shows() {
        let roles = [Role::Leader, Role::Follower, Role::Candidate, Role::Learner];
        assert_eq!(roles.map(Role::as_str), RAFT_ROLES);
        assert_eq!(Role::of(ServerState::Shutdown), None);
    }
}
