//! The daemon: takes the lock, opens the journal, begins the conductors, opens the doors.

use super::doors::Doors;
use super::exit::ExitStatus;
use crate::api::{Button, Registry};
use crate::conductor::{self, Beginning, Handle, Interceptor, Ledger};
use crate::config::{self, Layout, Misplaced, ServiceSettings, Settings};
use crate::journal::{self, Journal};
use anyhow::Context;
use cutover_core::{BootId, Order, Refusal};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// Bytes that the journal keeps back for the end of a run on a full disk.
const RESERVE: u64 = 4 << 20;
/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// How much longer than it says itself a service may take to stop with `--stop-services`.
const FAREWELL: Duration = Duration::from_secs(30);

/// How long the lock of a daemon that was just killed may be held by a child that it was starting: until its exec.
const HANDOVER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

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
    buttons: Vec<JoinHandle<()>>,
    _lock: File,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for door in self.doors.iter().chain(&self.buttons) {
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
    let own = settings.services.values().map(|service| service.policy.drain + service.policy.stop_grace);
    let farewell = own.max().unwrap_or_default() + FAREWELL;
    let again = layout.command("serve");
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
            tracing::info!("the daemon ends; services and fronts go on, `{again}` takes them up again");
            Ok(ExitStatus::Done)
        }
        End::StopServices => match stop_services(&serving.registry, farewell).await {
            Stopped::All => Ok(ExitStatus::Done),
            Stopped::NotAll => Ok(ExitStatus::Refused),
        },
    }
}

/// Stops every service. A service that goes on keeps its front, which answers its clients; they are not all stopped then.
async fn stop_services(registry: &Registry, limit: Duration) -> Stopped {
    let mut stopped = Stopped::All;
    let mut stopping = Vec::new();
    for service in registry.services.values() {
        match service.order(Order::Stop, "serve --stop-services".into(), conductor::Expected::default()).await
        {
            Ok(_) | Err(Refusal::AlreadySo) => stopping.push(service),
            Err(refusal) => {
                let pid = service.view().process.map(|process| process.pid);
                tracing::error!(service = service.service, pid, %refusal, "not stopped; it goes on and keeps its front");
                stopped = Stopped::NotAll;
            }
        }
    }
    let end = Instant::now() + limit;
    for service in stopping {
        let mut views = service.watch();
        let gone = views.wait_for(|view| view.stopped);
        if matches!(tokio::time::timeout_at(end.into(), gone).await, Ok(Ok(_))) {
            if let Err(why) = service.close_front().await {
                tracing::error!(service = service.service, why, "stopped, and its front is not");
                stopped = Stopped::NotAll;
            }
            continue;
        }
        let pid = service.view().process.map(|process| process.pid);
        tracing::error!(
            service = service.service,
            pid,
            "still runs after {} s; it keeps its front",
            limit.as_secs()
        );
        stopped = Stopped::NotAll;
    }
    for name in registry.broken.keys() {
        tracing::error!(service = name, "was not begun, so whatever runs of it was not stopped");
        stopped = Stopped::NotAll;
    }
    stopped
}

/// Whether the services that were to be stopped are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    All,
    NotAll,
}

/// Begins everything. A service that cannot be begun is named and does not keep the others from serving.
///
/// # Errors
/// Another daemon on the same state directory, a journal that cannot be used, an address that cannot be bound. No service
/// was touched.
pub async fn serve(settings: Settings, layout: Layout, executable: PathBuf) -> anyhow::Result<Serving> {
    let Settings { daemon, services } = settings;
    directories(&layout, services.keys())?;
    let lock = lock(&layout)?;
    let boot_id = BootId(boot_id()?);
    let journal =
        Journal::open(&layout.journal(), &journal::Settings { balloon_bytes: RESERVE, busy_limit: BUSY })?;
    let ledger = Ledger::new(journal, boot_id);
    // A daemon that nobody could reach would be restarted again and again, and interrupt a run each time.
    let doors = Doors::bind(&layout, daemon).await?;
    let mut registry = Registry {
        services: BTreeMap::new(),
        broken: BTreeMap::new(),
        channels: BTreeMap::new(),
        directories: BTreeMap::new(),
    };
    let mut buttons = Vec::new();
    for (name, service) in services {
        registry.channels.insert(name.clone(), service.channel().to_owned());
        registry.directories.insert(name.clone(), layout.service(&name));
        let (button, interceptor) = button(&service, &layout).unzip();
        let beginning = Beginning {
            settings: service,
            layout: layout.clone(),
            executable: executable.clone(),
            ledger: ledger.clone(),
            interceptor,
        };
        match begun(beginning).await {
            Ok(handle) => {
                buttons.extend(button.map(|button| tokio::spawn(button.attend(handle.clone()))));
                registry.services.insert(name, handle);
            }
            Err(error) => drop(registry.broken.insert(name, format!("{error:#}"))),
        }
    }
    let registry = Arc::new(registry);
    let address = doors.address();
    let doors = doors.open(&registry);
    tracing::info!(state = %layout.state.display(), services = registry.services.len(), "serving");
    Ok(Serving { registry, address, doors, buttons, _lock: lock })
}

/// The daemon's own directories, and whether their sockets' names are short enough.
fn directories<'a>(layout: &Layout, services: impl Iterator<Item = &'a String>) -> anyhow::Result<()> {
    let own = [layout.control(), layout.control_unopened()];
    for path in own.into_iter().chain(services.map(|name| layout.probe_lane(name))) {
        if !Layout::fits_socket(&path) {
            return Err(config::Error::from(Misplaced::TooLong { path }).into());
        }
    }
    conductor::private_directory(&layout.state)?;
    conductor::private_directory(&layout.runtime)?;
    conductor::private_directory(&layout.runtime.join("fronts"))?;
    conductor::passage(&layout.runtime)?;
    conductor::private_directory(&layout.intents())?;
    conductor::passage(&layout.intents())
}

async fn begun(beginning: Beginning) -> anyhow::Result<Handle> {
    let inherited: Vec<_> = std::env::vars_os().collect();
    conductor::begin(beginning, &inherited).await
}

/// The update button of the service's own clients, where it is answered here, and its place in the conductor.
fn button(settings: &ServiceSettings, layout: &Layout) -> Option<(Button, Interceptor)> {
    let config::Button::OpenClaw = settings.button?;
    Some(Button::new(settings.channel(), layout.service(&settings.name).join("current")))
}

/// One daemon per state directory. The kernel lets the lock go when its holder ends, however that happens.
pub(super) fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.lock();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < HANDOVER => std::thread::sleep(LOOK),
            Err(Errno::WOULDBLOCK) => {
                return Err(config::Error::from(Misplaced::Taken { path: layout.state.clone() }).into());
            }
            Err(errno) => return Err(errno).with_context(|| format!("locking {}", path.display())),
        }
    }
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
