//! The front: the data plane of one service.
//!
//! Knows connections and a posture: it proxies, holds, drains, declares maintenance. It must not know of updates,
//! generations or the journal. It runs as its own process and outlives the daemon that steers it over a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod body;
mod calls;
mod claim;
mod claims;
mod client;
mod connection;
pub mod control;
mod frames;
mod framing;
mod front;
mod gate;
mod headers;
mod listeners;
mod milliseconds;
mod notice;
mod owner;
mod peer;
mod posture;
pub mod process;
mod proxy;
mod session;
mod sieve;
mod sorters;
mod stats;
mod uplink;
mod upstream;
mod websocket;
mod wire;

pub use claim::{Claim, Claimed, EventPlace, Place, Say};
pub use front::{Limits, Options, serve};
pub use listeners::bind;
pub use notice::Notice;
pub use posture::{Forwarded, HoldId, Patience, Posture, Upstream};
pub use stats::{Drained, Stats};

/// What can fail in the front and in the daemon's hold on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A public address could not be bound.
    #[error("bind {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// One of the front's own Unix sockets could not be created.
    #[error("create the socket {}", path.display())]
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The front's event loop could not be started.
    #[error("start the front's event loop")]
    Loop {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No front answered at this path within the limit.
    #[error("reach the front at {} within {limit:?}", path.display())]
    Reach {
        /// The control socket.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
        /// The last attempt's failure.
        #[source]
        source: io::Error,
    },
    /// What answers at the control socket is not a front that this daemon understands.
    #[error("understand the front at {}: {why}", path.display())]
    Foreign {
        /// The control socket.
        path: PathBuf,
        /// What was wrong with its greeting.
        why: String,
    },
    /// The front's control connection has ended: the front died, or a newer daemon took over.
    #[error("order the front to {order}: its connection has ended")]
    Gone {
        /// What was ordered.
        order: &'static str,
    },
    /// The front did not answer within the limit.
    #[error("order the front to {order}: no answer within {limit:?}")]
    Overdue {
        /// What was ordered.
        order: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The front refused the order; nothing changed.
    #[error("order the front to {order}: {why}")]
    Refused {
        /// What was ordered.
        order: &'static str,
        /// The front's reason.
        why: String,
    },
    /// A listening socket could not be duplicated for passing.
    #[error("duplicate the listening socket of {address:?}")]
    Duplicate {
        /// Its address, where known.
        address: Option<SocketAddr>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
