//! The front through its front door: real sockets, real servers, real processes.

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
mod visitor;
mod websocket;
