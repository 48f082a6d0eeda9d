//! The process: arguments and environment in, an exit code out. The only place that reads either.
//!
//! Exit codes: 0 a clean stop or a granted restart · 1 anything broken · 2 usage or knobs · 78 state or configuration of
//! another version.

mod invocation;
mod signals;

use crate::installed::{self, Installed};
use crate::life::Service;
use crate::state::{self, State};
use crate::{Knobs, descendant, voice, web};
use invocation::{Invocation, Role};
use signals::{Ending, Signals};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The hidden subcommand under which an executable becomes the sample gateway.
pub const SUBCOMMAND: &str = "sample-gateway";

/// `EX_CONFIG` of sysexits.h: what is there belongs to another version, so trying again cannot help.
const CONFIGURATION: u8 = 78;

/// Why the gateway could not be or stay a service.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("read the own installation")]
    Installation { source: installed::Error },
    #[error("understand SAMPLE_KNOBS")]
    Knobs { source: serde_json::Error },
    #[error("read configuration {}", .path.display())]
    ReadConfiguration { path: PathBuf, source: io::Error },
    #[error("understand configuration {}", .path.display())]
    ParseConfiguration { path: PathBuf, source: serde_json::Error },
    #[error("unrecognized key in configuration: {key}")]
    UnknownKey { key: String },
    #[error("use the state")]
    State { source: state::Error },
    #[error("start the runtime")]
    Runtime { source: io::Error },
    #[error("listen for signals")]
    Signals { source: io::Error },
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("keep the listening socket")]
    KeepSocket { source: io::Error },
}

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::ReadConfiguration { .. } | Self::ParseConfiguration { .. } | Self::UnknownKey { .. } => {
                CONFIGURATION
            }
            Self::State { source: state::Error::NewerSchema { .. } } => CONFIGURATION,
            Self::Knobs { .. } => 2,
            _ => 1,
        }
    }
}

/// Is the sample gateway until it ends. `args` are those after the subcommand. Must not be called from within an
/// asynchronous runtime, because it makes its own.
///
/// `--port P` (0: any) `[--state DIR] [--config FILE]` serves; `check [--config FILE]` only says whether this version
/// accepts the configuration.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let role = match Role::parse(args, |name| std::env::var_os(name)) {
        Ok(role) => role,
        Err(usage) => {
            eprintln!("{SUBCOMMAND}: {usage}");
            return ExitCode::from(2);
        }
    };
    let outcome = match role {
        Role::Descendant { life } => return descendant::live(life),
        Role::Check(invocation) => prepare(&invocation).map(|_| 0),
        Role::Serve(invocation) => serve(invocation),
    };
    ExitCode::from(outcome.unwrap_or_else(|error| {
        voice::say(format!("Error: {}", chain(&error)));
        error.exit_code()
    }))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Everything before the first side effect.
fn prepare(invocation: &Invocation) -> Result<Installed, Error> {
    let mut installed = Installed::of_this_process().map_err(|source| Error::Installation { source })?;
    if let Some(overrides) = &invocation.knobs {
        let knobs = &mut installed.manifest.knobs;
        *knobs = knobs.overridden(overrides).map_err(|source| Error::Knobs { source })?;
    }
    if let Some(path) = &invocation.config {
        let text =
            std::fs::read(path).map_err(|source| Error::ReadConfiguration { path: path.clone(), source })?;
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)
            .map_err(|source| Error::ParseConfiguration { path: path.clone(), source })?;
        if let Some(key) = &installed.manifest.knobs.reject_config_key
            && keys.contains_key(key)
        {
            return Err(Error::UnknownKey { key: key.clone() });
        }
    }
    Ok(installed)
}

fn serve(invocation: Invocation) -> Result<u8, Error> {
    let installed = prepare(&invocation)?;
    let knobs = installed.manifest.knobs.clone();
    let state = match &invocation.state {
        Some(directory) => {
            Some(State::open(directory, knobs.schema_known()).map_err(|source| Error::State { source })?)
        }
        None => None,
    };
    voice::say(format!(
        "starting {} ({}) from {}",
        installed.manifest.version,
        installed.manifest.build,
        installed.root().display()
    ));
    reach_out(&knobs);
    let service = Arc::new(Service::new(installed, knobs, state, invocation.token.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::Runtime { source })?;
    let code = runtime.block_on(live(&service, &invocation));
    if let Some(state) = &service.state {
        state.close();
    }
    // Whatever still runs (a cut exchange, a blocked read) ends with the process.
    runtime.shutdown_background();
    code
}

/// What a service does to the world as soon as it starts.
fn reach_out(knobs: &Knobs) {
    let told = |done: io::Result<()>| done.map_or_else(|error| error.to_string(), |()| "done".to_owned());
    if let Some(address) = &knobs.dial_at_start {
        voice::say(format!("dialling {address}: {}", told(TcpStream::connect(address).map(drop))));
    }
    if let Some(path) = &knobs.append_at_start {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let appended = file.and_then(|mut file| file.write_all(b"started\n"));
        voice::say(format!("appending to {}: {}", path.display(), told(appended)));
    }
}

/// What there is to do before anything is bound.
async fn boot(knobs: &Knobs) {
    sleep(Duration::from_millis(knobs.boot_delay_ms)).await;
    while knobs.boot_after.as_ref().is_some_and(|file| !file.exists()) {
        sleep(Duration::from_millis(20)).await;
    }
}

/// The whole life after preparation; answers the exit code.
async fn live(service: &Arc<Service>, invocation: &Invocation) -> Result<u8, Error> {
    let knobs = &service.knobs;
    let mut signals =
        Signals::listen(invocation.intent_file.clone()).map_err(|source| Error::Signals { source })?;
    tokio::select! {
        () = boot(knobs) => {}
        _ = signals.ending(service) => return Ok(0),
    }
    if let Some(code) = knobs.crash_at_boot {
        voice::say("crashing at boot as asked");
        if knobs.crash_names_module {
            voice::say_module_not_found(&service.installed.root().join("chunks/chunk-tripwire.txt"));
        }
        return Ok(code);
    }
    let listeners = listen(invocation.port, knobs.bind_ipv6).await?;
    let held = hold_for_orphan(service, &listeners)?;
    service.bind();
    spawn_background(service);
    let mut servers = JoinSet::new();
    for listener in listeners {
        let stopped = Arc::clone(service);
        let server = axum::serve(listener, web::routes(Arc::clone(service)))
            .with_graceful_shutdown(async move { stopped.stopped().await });
        servers.spawn(async move { server.await });
    }
    let code = tokio::select! {
        ending = signals.ending(service) => stop(service, servers, ending).await,
        () = after_ready(service, knobs.crash_after_ms) => {
            voice::say("crashing as asked");
            knobs.exit_code.unwrap_or(1)
        }
    };
    if let (Some(socket), Some(ms)) = (held, knobs.orphan_on_port_ms) {
        leave_behind(Duration::from_millis(ms), Some(socket));
    }
    voice::say(format!("ended with code {code}"));
    Ok(code)
}

async fn listen(port: u16, and_ipv6: bool) -> Result<Vec<TcpListener>, Error> {
    let mut listeners = vec![listen_on((Ipv4Addr::LOCALHOST, port).into()).await?];
    if and_ipv6 {
        let address = listeners[0].local_addr().map_err(|source| Error::KeepSocket { source })?;
        listeners.push(listen_on((Ipv6Addr::LOCALHOST, address.port()).into()).await?);
    }
    Ok(listeners)
}

async fn listen_on(address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    voice::say(format!("listening on {}", listener.local_addr().map_err(failed)?));
    Ok(listener)
}

/// A second descriptor keeps accepting while a stop drains, so there is one only where it is asked for.
fn hold_for_orphan(service: &Service, listeners: &[TcpListener]) -> Result<Option<OwnedFd>, Error> {
    if service.knobs.orphan_on_port_ms.is_none() {
        return Ok(None);
    }
    let socket = listeners[0].as_fd().try_clone_to_owned();
    socket.map(Some).map_err(|source| Error::KeepSocket { source })
}

/// Comes back `ms` after the ready delay; never, if there is no such number.
async fn after_ready(service: &Service, ms: Option<u64>) {
    match ms {
        Some(ms) => sleep(Duration::from_millis(service.knobs.ready_delay_ms.saturating_add(ms))).await,
        None => std::future::pending().await,
    }
}

fn spawn_background(service: &Arc<Service>) {
    let knobs = &service.knobs;
    if let Some(ms) = knobs.log_tripwire_after_ms {
        let path = service.installed.root().join("chunks/chunk-tripwire.txt");
        tokio::spawn(async move {
            sleep(Duration::from_millis(ms)).await;
            voice::say_module_not_found(&path);
        });
    }
    if let Some(ms) = knobs.lazy_open_every_ms {
        tokio::spawn(open_lazily(Arc::clone(service), Duration::from_millis(ms.max(1))));
    }
    if let Some(ms) = knobs.spawn_child_ms {
        let service = Arc::clone(service);
        tokio::spawn(async move {
            after_ready(&service, Some(0)).await;
            leave_behind(Duration::from_millis(ms), None);
        });
    }
}

/// Opens chunks in no order that anything could foresee, until the process ends.
async fn open_lazily(service: Arc<Service>, every: Duration) {
    loop {
        sleep(every).await;
        let n = uuid::Uuid::new_v4().as_u64_pair().0 % service.installed.manifest.chunks.len() as u64;
        // A missing one has been logged and counted where it was missed.
        let _ = service.installed.open_chunk(usize::try_from(n).unwrap_or(0));
    }
}

fn leave_behind(life: Duration, socket: Option<OwnedFd>) {
    match descendant::start(life, socket) {
        Ok(pid) => voice::say(format!("left descendant {pid} behind")),
        Err(error) => voice::say(format!("Error: start a descendant: {error}")),
    }
}

/// Stops: the lazy part first, as programs do, then the farewells and what is in flight, within the limit.
async fn stop(service: &Service, mut servers: JoinSet<io::Result<()>>, ending: Ending) -> u8 {
    voice::say(match ending {
        Ending::Stop => "stopping",
        Ending::Restart => "stopping for a restart",
    });
    if let Err(error) = service.installed.open_shutdown_chunk() {
        voice::say(format!("Error: stop: {error}"));
        return 1;
    }
    service.stop();
    service.sockets.close();
    let drained = timeout(service.knobs.drain_limit(), async {
        while servers.join_next().await.is_some() {}
        service.sockets.wait().await;
    });
    if drained.await.is_err() {
        voice::say("drain limit reached, cutting what is left");
    }
    sleep(Duration::from_millis(service.knobs.slow_stop_ms)).await;
    let [usr1, usr2, hup] = [0, 1, 2].map(|n: usize| service.signals[n].load(Ordering::Relaxed));
    voice::say(format!("signals seen: usr1={usr1} usr2={usr2} hup={hup}"));
    match ending {
        Ending::Stop => service.knobs.exit_code.unwrap_or(0),
        Ending::Restart => 0,
    }
}
