//! Wakes whoever depends on who leads.

use tokio::sync::watch;

use super::proposer::Lead;

/// Tells when there is another leader.
#[derive(Debug)]
pub struct LeaderWatch(pub(super) watch::Receiver<Lead>);

impl LeaderWatch {
    pub fn mark_unchanged(&mut self) {
        self.0.mark_unchanged();
    }

    /// Resolves once there is another leader, or none, as far as this node knows.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}
