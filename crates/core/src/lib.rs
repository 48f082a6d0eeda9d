//! What an update is: one pure state machine and its readings. This crate knows no files, sockets, processes or clocks.

mod ids;
mod observation;

pub use ids::{BootId, Generation, Instance, Release, RunId};
pub use observation::{Code, FileIdentity, Listener, Observations, OldProcess, Owner, Seen};
