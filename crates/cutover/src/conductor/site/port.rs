//! The port of a service that names none.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// Where a port is chosen: below what Linux gives to outgoing connections by default.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_TRIES: u32 = 200;

/// A port chosen once and kept, so that a service keeps its address across starts.
pub(super) fn kept_port(path: &Path) -> anyhow::Result<u16> {
    if let Some(port) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(port);
    }
    let port = free_port()?;
    let new = path.with_extension("new");
    let write = |new: &Path| {
        let mut file = File::create(new)?;
        file.write_all(port.to_string().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(new, path)
    };
    write(&new).with_context(|| format!("writing {}", path.display()))?;
    Ok(port)
}

/// A port that nobody listens on and that the system gives to nobody by itself: one of those could be a client's when the
/// service starts again.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    for _ in 0..PORT_TRIES {
        let chosen = uuid::Uuid::new_v4().as_u64_pair().0 % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(chosen).expect("smaller than the range of ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}: name one as `port`", PORTS.start, PORTS.end)
}
