//! Whether somebody else holds the service's port.
//!
//! Must not know what anybody does there; nobody is asked and nobody is killed.

use crate::causes::told;
use crate::supervisor::{self, Holder};
use cutover_core::{Finding, Instance, Level};
use std::net::SocketAddr;

const KIND: &str = "port";

/// Looks for listeners on an address that are none of `ours`.
pub(super) fn look(address: SocketAddr, ours: &[Instance]) -> Vec<Finding> {
    let holding = match supervisor::holding(address.port(), ours) {
        Ok(holding) => holding,
        Err(error) => {
            let text = format!("whether {address} is free cannot be told: {}", told(&error));
            return vec![Finding::new(Level::Warn, KIND, text)];
        }
    };
    // An unspecified IPv6 address may take IPv4 connections too.
    let is_in_the_way = |holder: &&Holder| {
        let ip = holder.address.ip();
        ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified()
    };
    holding.foreign.iter().filter(is_in_the_way).map(|holder| told_of(address, holder)).collect()
}

fn told_of(address: SocketAddr, holder: &Holder) -> Finding {
    let command = holder.command.as_deref().unwrap_or("a command that cannot be read");
    let (who, advice) = match &holder.instance {
        Some(instance) => (
            format!("pid {} ({command}), uid {}", instance.pid, holder.uid),
            "stop it, or give the service another `port`",
        ),
        None => (
            format!("a process of uid {} that cannot be looked into", holder.uid),
            "find it with `ss -ltnp` as root, and stop it or give the service another `port`",
        ),
    };
    let text = format!("the service's port {} is held on {} by {who}", address.port(), holder.address);
    Finding::new(Level::Block, KIND, text).advised(advice)
}
