//! The daemon: takes the lock, opens the journal, begins the conductors, opens the doors.

use super::exit::ExitStatus;
use crate::api::{self, Registry};
use crate::conductor::{self, Beginning, Handle, Ledger};
use crate::config::{Layout, Settings};
use crate::journal::{self, Journal};
use anyhow::{Context, bail};
use cutover_core::{BootId, Order};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// Bytes that the journal keeps back for the end of a run on a full disk.
const RESERVE: u64 = 4 << 20;
/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// How long services may take to stop with `--stop-services`.
const FAREWELL: Duration = Duration::from_secs(60);

/// What SIGTERM does with the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// They and their fronts go on.
    LeaveServices,
    /// They are stopped.
    StopServices,
}

/// A daemon that serves. Dropping it closes its doors; services and fronts go on.
pub struct Serving {
    /// The services.
    pub registry: Arc<Registry>,
    /// Where the HTTP API listens.
    pub address: Option<std::net::SocketAddr>,
    doors: Vec<JoinHandle<()>>,
    _lock: File,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for door in &self.doors {
            door.abort();
        }
    }
}

pub(super) async fn command(settings: Settings, layout: Layout, end: End) -> anyhow::Result<ExitStatus> {
    log_to_stderr();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let executable = std::env::current_exe().context("finding this program")?;
    let serving = serve(settings, layout, executable).await?;
    for (name, why) in &serving.registry.broken {
        tracing::error!(service = name, why, "not begun; the other services are");
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => tracing::warn!("a changed configuration is taken by restarting the daemon; services go on meanwhile"),
        }
    }
    match end {
        End::LeaveServices => {
            tracing::info!("the daemon ends; services and fronts go on, `cutover serve` takes them up again")
        }
        End::StopServices => stop_services(&serving.registry).await,
    }
    Ok(ExitStatus::Done)
}

async fn stop_services(registry: &Registry) {
    for service in registry.services.values() {
        if let Err(refusal) =
            service.order(Order::Stop, "serve --stop-services".into(), conductor::Expected::default()).await
        {
            tracing::warn!(service = service.service, %refusal, "not stopped");
        }
    }
    for service in registry.services.values() {
        let mut views = service.watch();
        let stopped = views.wait_for(|view| view.process.is_none());
        if tokio::time::timeout(FAREWELL, stopped).await.is_err() {
            tracing::warn!(service = service.service, "still runs");
        }
        service.close_front().await;
    }
}

/// Begins everything. A service that cannot be begun is named and does not keep the others from serving.
///
/// # Errors
/// Another daemon on the same state directory, a journal that cannot be used, an address that cannot be bound.
pub async fn serve(settings: Settings, layout: Layout, executable: PathBuf) -> anyhow::Result<Serving> {
    conductor::private_directory(&layout.state)?;
    conductor::private_directory(&layout.runtime)?;
    conductor::private_directory(&layout.runtime.join("fronts"))?;
    conductor::passage(&layout.runtime)?;
    conductor::private_directory(&layout.intents())?;
    conductor::passage(&layout.intents())?;
    for name in settings.services.keys() {
        let lane = layout.probe_lane(name);
        if !Layout::fits_socket(&lane) {
            bail!("{} is too long for a socket; name a shorter directory with --runtime", lane.display());
        }
    }
    let lock = lock(&layout.lock())?;
    let boot_id = BootId(boot_id()?);
    let journal =
        Journal::open(&layout.journal(), &journal::Settings { balloon_bytes: RESERVE, busy_limit: BUSY })?;
    let ledger = Ledger::new(journal, boot_id);
    let mut registry = Registry {
        services: BTreeMap::new(),
        broken: BTreeMap::new(),
        channels: BTreeMap::new(),
        directories: BTreeMap::new(),
    };
    for (name, service) in settings.services {
        registry.channels.insert(name.clone(), service.channel().to_owned());
        registry.directories.insert(name.clone(), layout.service(&name));
        match begun(service, &layout, &executable, &ledger).await {
            Ok(handle) => drop(registry.services.insert(name, handle)),
            Err(error) => drop(registry.broken.insert(name, format!("{error:#}"))),
        }
    }
    let registry = Arc::new(registry);
    let mut doors = vec![unix_door(&layout.control(), &registry)?];
    let mut address = None;
    if let Some(listen) = settings.daemon.listen {
        let token = token(&layout.token())?;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("listening on {listen}; name another address in [daemon] listen, or \"off\"")
        })?;
        address = listener.local_addr().ok();
        let routes = api::public(Arc::clone(&registry), token, settings.daemon.hosts);
        doors.push(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the HTTP API ended");
            }
        }));
    }
    tracing::info!(state = %layout.state.display(), services = registry.services.len(), "serving");
    Ok(Serving { registry, address, doors, _lock: lock })
}

async fn begun(
    settings: crate::config::ServiceSettings,
    layout: &Layout,
    executable: &Path,
    ledger: &Ledger,
) -> anyhow::Result<Handle> {
    let beginning = Beginning {
        settings,
        layout: layout.clone(),
        executable: executable.to_owned(),
        ledger: ledger.clone(),
    };
    let inherited: Vec<_> = std::env::vars_os().collect();
    conductor::begin(beginning, &inherited).await
}

/// One daemon per state directory. The kernel lets the lock go when its holder ends, however that happens.
fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another daemon runs on {}; `cutover status` asks it", path.display()))?;
    Ok(file)
}

fn unix_door(path: &Path, registry: &Arc<Registry>) -> anyhow::Result<JoinHandle<()>> {
    // Whoever holds the lock owns the socket: what lies there is a dead daemon's.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", path.display()))?;
    let routes = api::local(Arc::clone(registry));
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the control socket ended");
        }
    }))
}

/// The API's token, made once.
fn token(path: &Path) -> anyhow::Result<String> {
    if let Ok(token) = std::fs::read_to_string(path) {
        return Ok(token.trim().to_owned());
    }
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(token.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    Ok(token)
}

fn boot_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned())
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CUTOVER_LOG").unwrap_or_else(|_| "info".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
