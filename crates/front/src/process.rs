//! The front as a process of its own: its event loop, its signals, its share of descriptors.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit, setsid};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{Error, Options};

/// Runs a front until SIGTERM, SIGINT or a daemon's order. SIGHUP changes nothing: it outlives terminals and daemons.
///
/// # Errors
/// [`Error::Loop`] and [`Error::Socket`]; nothing was accepted then.
pub fn run(options: Options) -> Result<(), Error> {
    // A signal to the daemon's process group must not reach the front; a group leader has a group of its own already.
    if let Err(error) = setsid() {
        debug!(%error, "stays in its session");
    }
    raise_descriptor_limit();
    // One thread: a request's work is mostly the kernel's, and passing it between threads costs more than it gains.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Loop { source })?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        watch_signals(&stop).map_err(|source| Error::Loop { source })?;
        crate::serve(options, stop).await
    })
}

fn watch_signals(stop: &CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
            }
        }
        stop.cancel();
    });
    Ok(())
}

/// Each request in flight needs two descriptors; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        debug!(%error, "keeps its descriptor limit");
    }
}
