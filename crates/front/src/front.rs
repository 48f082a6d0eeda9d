//! The whole front: its gate, its sockets, its end.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::claims::Claims;
use crate::connection;
use crate::gate::{Caps, Gate};
use crate::listeners::Listeners;
use crate::peer::Socket;
use crate::proxy::Lane;
use crate::session;
use crate::stats::Counters;
use crate::{Error, Patience};

/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a front is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The service's name, for its notices.
    pub service: String,
    /// The control socket; made anew, 0600.
    pub control: PathBuf,
    /// The probe lane's socket; made anew, 0600.
    pub probe: PathBuf,
    /// The hold in which the front starts.
    pub patience: Patience,
    /// What clients may take.
    pub limits: Limits,
}

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that may wait at once.
    pub held_max: usize,
    /// Bytes of headers that a waiting request may have.
    pub held_head_max: usize,
    /// How long a client may take for a request's head, and how long it may be idle between two: longer than clients keep an
    /// idle connection (90 s in the libraries of Go and Rust), since one that sends into a connection's end gets no answer.
    pub head_timeout: Duration,
    /// How long open exchanges may take to end when the front is told to.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            held_max: 4096,
            held_head_max: 64 * 1024,
            head_timeout: Duration::from_secs(120),
            farewell: Duration::from_secs(5),
        }
    }
}

/// What all parts of a running front share.
pub(crate) struct Shared {
    pub(crate) service: String,
    pub(crate) limits: Limits,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) listeners: Listeners,
    pub(crate) claims: Arc<Claims>,
    /// Client connections and WebSockets.
    pub(crate) clients: TaskTracker,
    pub(crate) leaving: CancellationToken,
}

/// Runs a front until `stop` is cancelled or a daemon orders it to quit. It starts closed: holding.
///
/// # Errors
/// [`Error::Socket`] if one of its own sockets cannot be made; nothing runs then.
pub async fn serve(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let control = OwnSocket::create(&options.control)?;
    let probe = OwnSocket::create(&options.probe)?;
    let counters = Arc::new(Counters::default());
    let caps = Caps { held_max: options.limits.held_max, held_head_max: options.limits.held_head_max };
    let shared = Arc::new(Shared {
        service: options.service,
        limits: options.limits,
        gate: Gate::closed(options.patience, Arc::clone(&counters), caps),
        counters,
        listeners: Listeners::default(),
        claims: Arc::default(),
        clients: TaskTracker::new(),
        leaving: stop,
    });
    info!(service = shared.service, "front is up, holding");
    tokio::select! {
        () = shared.leaving.cancelled() => {}
        () = obey_daemons(&shared, &control.listener) => {}
        () = admit_probes(&shared, &probe.listener) => {}
    }
    shared.listeners.close();
    shared.gate.dismiss();
    shared.clients.close();
    if timeout(shared.limits.farewell, shared.clients.wait()).await.is_err() {
        warn!(clients = shared.clients.len(), "ending with open client connections");
    }
    info!(service = shared.service, "front has ended");
    Ok(())
}

/// Speaks with one daemon at a time; a newer one replaces the older.
async fn obey_daemons(shared: &Arc<Shared>, listener: &UnixListener) {
    let mut current: Option<JoinHandle<()>> = None;
    loop {
        let stream = accept_own(listener).await;
        if let Some(older) = current.take() {
            older.abort();
            // Whatever the older one had begun is over before the newer one speaks.
            let _ = older.await;
        }
        let shared = Arc::clone(shared);
        current = Some(tokio::spawn(async move {
            if let Err(error) = session::converse(shared, stream).await {
                debug!(%error, "a daemon's connection");
            }
        }));
    }
}

async fn admit_probes(shared: &Arc<Shared>, listener: &UnixListener) {
    loop {
        let stream = accept_own(listener).await;
        shared.clients.spawn(connection::converse(
            Arc::clone(shared),
            Socket::Unix(stream),
            None,
            Lane::Probe,
        ));
    }
}

/// The next connection of this user's or root's.
async fn accept_own(listener: &UnixListener) -> UnixStream {
    let own = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream))) {
            Ok((uid, stream)) if uid == own || uid == 0 => return stream,
            Ok((uid, _)) => warn!(uid, "a stranger at an own socket"),
            Err(error) => {
                warn!(%error, "accept at an own socket");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A Unix socket that only its owner may use; its name goes when it does, unless a newer front has taken it.
struct OwnSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl OwnSocket {
    fn create(path: &Path) -> Result<Self, Error> {
        let created = || -> io::Result<Self> {
            // Under another name until its mode is right, then in one step over whatever a dead front has left.
            let mut fresh = path.as_os_str().to_owned();
            fresh.push(format!(".{}", std::process::id()));
            let fresh = PathBuf::from(fresh);
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&fresh)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
            let inode = fs::symlink_metadata(&fresh)?.ino();
            fs::rename(&fresh, path)?;
            Ok(Self { listener, path: path.to_owned(), inode })
        };
        created().map_err(|source| Error::Socket { path: path.to_owned(), source })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|entry| entry.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
