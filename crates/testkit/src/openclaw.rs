//! What a test of the real OpenClaw gateway needs: a node to run it with, a client that speaks its protocol, lists of
//! calls and files that show a replaced tree, and builds of it that do not work.
//!
//! This workshop knows the gateway as it was measured (`docs/openclaw.md`). It must not know who installs or runs it.

mod broken;
mod page;
mod rpc;
mod runtime;
mod sweep;

pub use broken::{Defect, broken};
pub use page::{Page, Reply, fetch};
pub use rpc::{Answer, Client, Hello};
pub use runtime::{NODE_VERSION, Runtime, registry};
pub use sweep::{Sweep, sweep};

/// The version that the incident began with.
pub const OLD: &str = "2026.5.3-1";
/// The version that the incident was to end with.
pub const NEW: &str = "2026.5.4";
