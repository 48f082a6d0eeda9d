//! Checked settings: what the rooms take. A value of these types is usable as it stands.

use super::complaint::{Complaint, keep};
use super::fragment::{DeclaredBy, File};
use super::idle::IdleSettings;
use super::notify::{NotifySettings, notify};
use super::plugins::PluginSettings;
use super::question::QuestionSettings;
use super::repair::RepairSettings;
use super::service::service;
use crate::store::snapshot::{StateKind, StatePath};
use cutover_core::{DataClass, Intake, Level, Policy, Strategy};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that one daemon runs on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The daemon itself.
    pub daemon: DaemonSettings,
    /// The services, by name.
    pub services: BTreeMap<String, ServiceSettings>,
}

/// The daemon itself.
#[derive(Clone, Debug)]
pub struct DaemonSettings {
    /// Address of the HTTP API; `None`: off.
    pub listen: Option<SocketAddr>,
    /// Further host names that requests may be addressed to.
    pub hosts: Vec<String>,
    /// Where its directories are.
    pub directories: Directories,
}

/// Where the daemon's directories are, as far as they are not the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Directories {
    /// Journal, generations, snapshots and logs.
    pub state: Option<PathBuf>,
    /// Sockets and intents.
    pub runtime: Option<PathBuf>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// Its name.
    pub name: String,
    /// Where releases come from.
    pub source: SourceSettings,
    /// Plugins that are one thing with it.
    pub plugins: Vec<PluginSettings>,
    /// Program and arguments with placeholders.
    pub command: Vec<String>,
    /// The file that proves which code runs, with placeholders.
    pub entry: String,
    /// The front's addresses; empty: no front.
    pub listen: Vec<SocketAddr>,
    /// The service's own port.
    pub port: Port,
    /// Who runs it.
    pub user: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// Its working directory, with placeholders.
    pub cwd: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// A file of KEY=VALUE lines.
    pub env_file: Option<PathBuf>,
    /// The interpreter.
    pub node: Option<PathBuf>,
    /// How the restart is done.
    pub strategy: Strategy,
    /// Headers that the front adds.
    pub forwarded: cutover_front::Forwarded,
    /// Where its work comes from.
    pub intake: Intake,
    /// Whose update button is answered in the service's place.
    pub button: Option<Button>,
    /// How often the followed channel is looked at; `None`: never.
    pub check_every: Option<Duration>,
    /// Liveness path.
    pub live: Option<String>,
    /// Readiness path.
    pub ready: Option<String>,
    /// Path of a page that users open.
    pub page: Option<String>,
    /// What a WebSocket must be greeted with.
    pub websocket: Option<WebSocketSettings>,
    /// How it states its version.
    pub version: VersionSettings,
    /// How it tells whether it has work under way.
    pub idle: Option<IdleSettings>,
    /// Headers of every probe, with placeholders.
    pub probe_headers: BTreeMap<String, String>,
    /// Limit of one probe request.
    pub probe_timeout: Duration,
    /// Declared state.
    pub state: Vec<StateSettings>,
    /// Who is told of its runs and alarms: those whom it names, then those who are told of every service.
    pub notify: Vec<NotifySettings>,
    /// Limits and rules.
    pub policy: Policy,
    /// Exit codes after which it is not started again by itself.
    pub restart_prevent_exit_status: Vec<i32>,
    /// Exit codes by which a proven process asks to be started again.
    pub restart_force_exit_status: Vec<i32>,
    /// What warnings and blocks of a preflight weigh, by their kind.
    pub preflight: BTreeMap<String, Level>,
    /// The target's own validator of the configuration, with placeholders; empty: nobody is asked.
    pub validate: Vec<String>,
    /// The target's own repair of a configuration that it refuses.
    pub repair: Option<RepairSettings>,
    /// What the target is asked about declared data.
    pub questions: Vec<QuestionSettings>,
    /// Requests that the front holds at most.
    pub held_max: usize,
    /// Size (bytes) at which its log is rotated.
    pub log_size: u64,
    /// Rotated log files kept.
    pub log_files: u32,
}

impl ServiceSettings {
    /// What a run freezes of these settings.
    #[must_use]
    pub fn for_run(&self) -> cutover_core::Settings {
        cutover_core::Settings {
            strategy: self.strategy,
            class: self.class(),
            intake: self.intake,
            policy: self.policy.clone(),
        }
    }

    /// What happens to the data: none is declared, or nobody knows (which counts as migrated).
    #[must_use]
    pub fn class(&self) -> DataClass {
        if self.state.is_empty() { DataClass::None } else { DataClass::Migrated }
    }

    /// The channel that `update` follows.
    #[must_use]
    pub fn channel(&self) -> &str {
        match &self.source {
            SourceSettings::Directory { channel, .. } | SourceSettings::Npm { channel, .. } => channel,
        }
    }
}

/// Where releases come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSettings {
    /// One subdirectory per version.
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The link that `update` follows.
        channel: String,
    },
    /// An npm package.
    Npm {
        /// Its name.
        package: String,
        /// The dist-tag that `update` follows.
        channel: String,
        /// The registry, where it is not npm's own setting.
        registry: Option<String>,
        /// How npm is called, where it is not found beside the interpreter.
        npm: Option<Vec<String>>,
        /// Lifecycle scripts.
        scripts: Scripts,
    },
}

/// Whether packages' lifecycle scripts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// They do not.
    Off,
    /// Those of the package itself do.
    Own,
    /// They do.
    On,
}

/// The service's own port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Chosen once and kept.
    Auto,
    /// This one.
    Fixed(u16),
}

/// An update button of a service's own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// OpenClaw's: `update.*` over its WebSocket.
    OpenClaw,
}

/// What a client that opens a WebSocket gets without asking.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketSettings {
    /// The path.
    pub path: String,
    /// Pointer into the first text frame.
    pub pointer: String,
    /// The string that must stand there.
    pub equals: String,
}

/// How a service states its version.
#[derive(Clone, Debug, PartialEq)]
pub enum VersionSettings {
    /// JSON over HTTP.
    Http {
        /// The path.
        path: String,
        /// Pointer to the version.
        pointer: String,
        /// Pointer to a build id.
        build: Option<String>,
        /// Pointer to an instance id.
        instance: Option<String>,
        /// Pointer to the plugins that run.
        plugins: Option<String>,
    },
    /// The `hello-ok` of an OpenClaw gateway, which says where version, build and boot id stand.
    OpenClaw {
        /// Its token, with placeholders.
        token: String,
    },
}

/// A piece of declared state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSettings {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it is an SQLite database with companions (else files).
    pub kind: StateKind,
    /// Who says so.
    pub by: DeclaredBy,
}

impl From<&StateSettings> for StatePath {
    fn from(state: &StateSettings) -> Self {
        Self { path: state.path.clone(), kind: state.kind }
    }
}
pub(super) fn check(file: File) -> Result<Settings, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let listen = match file.daemon.listen.as_deref() {
        Some("off") => None,
        other => match other.unwrap_or("127.0.0.1:7117").parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Some(address),
            Ok(_) => {
                complaints
                    .push(Complaint::new("daemon.listen", "the API listens on loopback only; use a tunnel"));
                None
            }
            Err(_) => {
                complaints.push(Complaint::new(
                    "daemon.listen",
                    "write an address like \"127.0.0.1:7117\", or \"off\"",
                ));
                None
            }
        },
    };
    let daemon = DaemonSettings {
        listen,
        hosts: file.daemon.hosts,
        directories: Directories { state: file.daemon.state, runtime: file.daemon.runtime },
    };
    let told_of_all = keep(notify("daemon.notify", &file.daemon.notify), &mut complaints).unwrap_or_default();
    let mut services = BTreeMap::new();
    for (name, fragment) in file.service {
        match service(&name, fragment) {
            Ok(mut settings) => {
                let is_unnamed = |of_all: &&NotifySettings| {
                    settings.notify.iter().all(|known| known.target.id != of_all.target.id)
                };
                let more: Vec<_> = told_of_all.iter().filter(is_unnamed).cloned().collect();
                settings.notify.extend(more);
                services.insert(name, settings);
            }
            Err(more) => complaints.extend(
                more.into_iter().map(|c| Complaint::new(format!("service.{name}.{}", c.key), c.problem)),
            ),
        }
    }
    complaints.extend(super::conflict::between(&daemon, &services));
    if complaints.is_empty() { Ok(Settings { daemon, services }) } else { Err(complaints) }
}
