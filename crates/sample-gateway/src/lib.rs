//! A small HTTP and WebSocket service that can be well or badly behaved on request: what `cutover demo` updates and what
//! the tests of every room start as a real process.
//!
//! It knows how to be a service: listen, answer, become ready, stop. It knows nothing of updates, generations or the
//! journal; the one thing it shares with `cutover` is the restart intent (`crates/intent`).

mod descendant;
mod installed;
mod knobs;
mod life;
mod page;
pub mod process;
pub mod release;
mod restart;
mod socket;
mod state;
mod voice;
mod web;

pub use knobs::{Knobs, Readiness};
