//! The front through its front door: real sockets, real servers, real processes.
#![allow(clippy::unwrap_used)]

mod backpressure;
mod claiming;
mod control;
mod drain;
mod framing;
mod hold;
mod maintain;
mod probe;
mod process;
mod proxying;
mod service;
mod stage;
mod stopping;
mod visitor;
mod websocket;
