//! The preflight on reality: small trees as npm makes them, the machine's own node, real modules of machine code, real
//! ports, units and processes.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

#[path = "preflight/configuration.rs"]
mod configuration;
#[path = "preflight/host.rs"]
mod host;
#[path = "preflight/native.rs"]
mod native;
#[path = "preflight/packages.rs"]
mod packages;
#[path = "preflight/real.rs"]
mod real;
#[path = "preflight/world.rs"]
mod world;
