//! An application of controllers: a node, and the server that they are bound to.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::apps::controllers::{RouteError, SocketServer};
use crate::config::Config;
use crate::node::{DrainError, Node, StartError};

type Register = dyn Fn(&SocketServer) -> Result<(), RouteError> + Send + Sync;

/// A node whose application is made of [controllers](crate::apps::controllers).
///
/// Dropping it does not stop it: [`stop`](Self::stop) does.
pub struct ControllerApplication {
    config: Arc<Config>,
    register: Box<Register>,
    running: Option<(Node, SocketServer)>,
    url: Option<String>,
}

/// Why an application does not start.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    #[error("the application runs already")]
    Running,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ControllerApplication {
    /// An application that is not started; `register` puts its controllers up whenever it is.
    pub fn new(
        config: Arc<Config>,
        register: impl Fn(&SocketServer) -> Result<(), RouteError> + Send + Sync + 'static,
    ) -> Self {
        Self { config, register: Box::new(register), running: None, url: None }
    }

    /// Starts the node. It takes clients once it is a member of a cluster with a leader, which
    /// `node().ready()` waits for.
    pub async fn start(&mut self) -> Result<(), ApplicationError> {
        if self.running.is_some() {
            return Err(ApplicationError::Running);
        }
        let mut registered = None;
        let register = &self.register;
        let node = Node::start_with(self.config.clone(), |io| {
            let server = SocketServer::new(io);
            registered = Some(register(&server).map(|()| server));
        });
        let node = node.await?;
        match registered.expect("a node that starts has registered its application") {
            Ok(server) => {
                self.url = Some(url(node.addresses().listen));
                self.running = Some((node, server));
                Ok(())
            }
            Err(error) => {
                // What is left running is logged by the node; the reason is the registration.
                let _ = node.drain().await;
                Err(error.into())
            }
        }
    }

    /// Stops the node: it takes no more clients, closes every connection, and waits for all of it
    /// to end. It may be started again.
    pub async fn stop(&mut self) -> Result<(), DrainError> {
        match self.running.take() {
            Some((node, _)) => node.drain().await,
            None => Ok(()),
        }
    }

    pub fn is_listening(&self) -> bool {
        self.running.is_some()
    }

    /// Where clients of this machine find it, once it has been started; it is kept when it stops.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// While it runs.
    pub fn server(&self) -> Option<&SocketServer> {
        self.running.as_ref().map(|(_, server)| server)
    }

    /// While it runs.
    pub fn node(&self) -> Option<&Node> {
        self.running.as_ref().map(|(node, _)| node)
    }
}

/// A node that listens at every address is found at this machine's own.
fn url(mut listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{listen}")
}

impl fmt::Debug for ControllerApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerApplication").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_one_that_can_be_dialled() {
        let url = |listen: &str| url(listen.parse().unwrap());
        assert_eq!(url("127.0.0.2:3001"), "http://127.0.0.2:3001");
        assert_eq!(url("0.0.0.0:3001"), "http://127.0.0.1:3001");
        assert_eq!(url("[::]:3001"), "http://[::1]:3001");
    }
}
