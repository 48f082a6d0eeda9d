//! The rooms of `cutover`. See ARCHITECTURE.md for the map.
// What is printed goes through `cli::outlet`: a reader that has gone is no panic.
#![cfg_attr(not(test), warn(clippy::print_stdout))]

pub mod api;
mod causes;
pub mod cli;
pub mod conductor;
pub mod config;
pub mod crash_point;
pub mod demo;
mod front_process;
pub mod journal;
pub mod notify;
mod polling;
pub mod predecessor;
pub mod preflight;
pub mod probe;
pub mod rehearsal;
mod resolved;
pub mod sandbox;
mod shell;
pub mod store;
pub mod supervisor;
