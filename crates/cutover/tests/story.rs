//! Whole stories through the real program: a daemon process, its front and keepers, the sample service, the command line.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

#[path = "story/stage.rs"]
#[allow(dead_code, reason = "the stage is shared with another set of stories")]
mod stage;

#[path = "story/accounts.rs"]
mod accounts;
#[path = "story/authority.rs"]
mod authority;
#[path = "story/awaiting.rs"]
mod awaiting;
#[path = "story/beginning.rs"]
mod beginning;
#[path = "story/button.rs"]
mod button;
#[path = "story/configuration.rs"]
mod configuration;
#[path = "story/daemon.rs"]
mod daemon;
#[path = "story/data.rs"]
mod data;
#[path = "story/front.rs"]
mod front;
#[path = "story/idle.rs"]
mod idle;
#[path = "story/maintenance.rs"]
mod maintenance;
#[path = "story/notices.rs"]
mod notices;
#[path = "story/offer.rs"]
mod offer;
#[path = "story/orders.rs"]
mod orders;
#[path = "story/pair.rs"]
mod pair;
#[path = "story/plugins.rs"]
mod plugins;
#[path = "story/preflight.rs"]
mod preflight;
#[path = "story/process.rs"]
mod process;
#[path = "story/proof.rs"]
mod proof;
#[path = "story/rehearsal.rs"]
mod rehearsal;
#[path = "story/repair.rs"]
mod repair;
#[path = "story/seal.rs"]
mod seal;
#[path = "story/state.rs"]
mod state;
#[path = "story/stock_client.rs"]
mod stock_client;
