//! What a test of the real OpenClaw gateway needs: a node to run it with, a client that speaks its protocol, lists of
//! calls and files that show a replaced tree, and builds of it that do not work.
//!
//! This workshop knows the gateway as it was measured (`docs/openclaw.md`). It must not know who installs or runs it.

mod broken;
mod page;
mod plugin;
mod rpc;
mod runtime;
mod stock;
mod sweep;

pub use broken::{Defect, broken};
pub use page::{Page, Reply, fetch};
pub use plugin::{
    LATER_NAME, PROGRESS_LINES, PROGRESS_LINES_ID, SHARED_NAME, progress_lines, progress_lines_from,
    progress_lines_that_throw,
};
pub use rpc::{Answer, Client, Hello};
pub use runtime::{NODE_VERSION, Runtime, registry};
pub use stock::StockClient;
pub use sweep::{Sweep, sweep};

use std::path::{Path, PathBuf};

/// Where packages are kept between tests: what `CUTOVER_TEST_CACHE` names, else `target/ci`.
#[must_use]
pub fn cache() -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci");
    std::env::var_os("CUTOVER_TEST_CACHE").map_or_else(usual, PathBuf::from)
}

/// The version that the incident began with.
pub const OLD: &str = "2026.5.3-1";
/// The version that the incident was to end with.
pub const NEW: &str = "2026.5.4";
/// The last pair before this was written.
pub const LATEST: [&str; 2] = ["2026.9.5", "2026.9.6"];
/// A plugin of the gateway that is a package of its own.
pub const PLUGIN: &str = "@openclaw/discord";
/// Versions of it: two that the latest pair does not fit, and those of the latest pair.
pub const PLUGIN_VERSIONS: [&str; 4] = ["2026.6.11", "2026.7.35", "2026.9.5", "2026.9.6"];
/// The public client of the gateway's protocol, which somebody else wrote.
pub const STOCK_CLIENT: &str = "openclaw-node";
/// The version of it that is tried: it speaks protocol 4.
pub const STOCK_CLIENT_VERSION: &str = "0.14.0";
