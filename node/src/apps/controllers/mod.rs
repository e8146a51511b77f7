//! Controllers: types bound to namespaces, one instance for each socket (LoopBack's `@loopback/socketio`).
//!
//! [`controller`] makes a type a [`Controller`]; a [`SocketServer`] binds controllers to the
//! namespaces of a node, and [`ControllerApplication`](crate::application::ControllerApplication)
//! is a node with such a server. `docs/controllers.md` is the tutorial.

#[cfg(doctest)]
#[doc = include_str!("../../../../docs/controllers.md")]
mod tour {}

mod call;
mod controller;
mod discovery;
mod error;
#[doc(hidden)]
pub mod glue;
mod index;
mod instance;
mod sequence;
mod server;
mod waiting;

pub use call::{Arguments, Call, Inject, Occurrence, State};
pub use controller::{Controller, Description, Matcher, Method, Subscription};
pub use discovery::Discovered;
pub use error::Error;
pub use sequence::{DefaultSequence, Invocation, Output, Reply, Sequence};
pub use server::{RouteError, Routed, SocketServer};

/// Makes an `impl` block a [`Controller`], bound to a namespace.
///
/// ```
/// use flotilla::apps::controllers::{Error, controller};
/// use flotilla::server::{Reason, Socket};
///
/// #[derive(Default)]
/// struct Chat;
///
/// #[controller("/chat")]
/// impl Chat {
///     #[connect]
///     async fn welcome(&self, socket: Socket) -> Result<(), Error> {
///         socket.join("lobby").await?;
///         Ok(())
///     }
///
///     #[subscribe("say", "shout")]
///     async fn say(&self, socket: Socket, text: String) -> usize {
///         socket.to("lobby").emit("said", &text);
///         text.len()
///     }
///
///     #[disconnect]
///     fn gone(&self, socket: Socket, Reason(reason): Reason) {
///         println!("{} left: {reason}", socket.id());
///     }
/// }
/// ```
///
/// | | |
/// | --- | --- |
/// | `#[controller]` | the namespace is `/` |
/// | `#[controller("/chat")]`, `#[controller(namespace = "/chat")]` | that namespace |
/// | `#[controller(regex = r"^/room-\d+$")]` | the namespaces that match |
/// | `#[controller("/chat", name = "chat")]` | the server's [`namespace`](SocketServer::namespace) of that name |
/// | `#[create]` | on a function without `self`: makes the instance; without it, `Default` does |
/// | `#[connect]` | runs for each socket before its events, awaited, in the order of the methods |
/// | `#[subscribe("a", "b", regex = "^c")]` | runs for each event that one of them matches |
/// | `#[disconnect]` | runs when the socket has left |
///
/// A parameter that can be [injected](Inject) is; the others are the client's arguments, in their
/// order.
pub use flotilla_macros::controller;
