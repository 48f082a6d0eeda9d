//! The page in a real browser, against the real daemon and the sample service: what a person sees of every kind of run, and
//! what the page does when it does not hear the daemon.
//!
//! `CUTOVER_TEST=page cargo test -p cutover --test page -- --nocapture`; what was seen is in `target/page`.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

#[path = "story/stage.rs"]
#[allow(dead_code, reason = "the stage is shared, and these stories need little of it")]
mod stage;

#[path = "story/pair.rs"]
#[allow(dead_code, reason = "the pair is shared, and these stories need little of it")]
mod pair;

#[path = "page/accepting.rs"]
mod accepting;
#[path = "page/awaiting.rs"]
mod awaiting;
#[path = "page/failures.rs"]
mod failures;
#[path = "page/login.rs"]
mod login;
#[path = "page/seeing.rs"]
mod seeing;
#[path = "page/sources.rs"]
mod sources;
#[path = "page/strangers.rs"]
mod strangers;
#[path = "page/updates.rs"]
mod updates;
#[path = "page/viewer.rs"]
mod viewer;
