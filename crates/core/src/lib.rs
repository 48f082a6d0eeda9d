//! What an update is: one pure state machine and its readings. This crate knows no files, sockets, processes or clocks.

mod ids;

pub use ids::{BootId, Generation, Instance, Release, RunId};
