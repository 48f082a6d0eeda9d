//! Checked settings: what the rooms take. A value of these types is usable as it stands.

use super::clearance::clearance;
use super::fragment::{
    ButtonFragment, File, ForwardedFragment, InputsFragment, LevelFragment, OneOrMany, PolicyFragment,
    PortFragment, PreflightFragment, RehearseFragment, ReleaseFragment, RollbackFragment, ScriptsFragment,
    Service, Source, StateKind, StrategyFragment, WebSocketFragment,
};
use super::idle::{IdleSettings, idle};
use super::notify::{NotifySettings, notify};
use super::plugins::{PluginSettings, plugins};
use super::question::{QuestionSettings, questions};
use super::repair::{RepairSettings, repair, repair_rule};
use cutover_core::{
    Clearance, DataClass, Finding, Intake, Level, Policy, RehearsalRule, ReleaseRule, RestoreAfterRelease,
    RollbackRule, Strategy,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Stands for the home of the service's user.
pub(crate) const HOME: &str = "{home}";

/// How often the followed channel is looked at without a word about it.
const CHECK_EVERY: Duration = Duration::from_secs(3600);

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
    /// State directory, where it is not the default.
    pub state: Option<PathBuf>,
    /// Runtime directory, where it is not the default.
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
    pub kind: crate::store::snapshot::StateKind,
}

/// A value that cannot be used, and what to write instead.
pub(super) struct Complaint {
    pub key: String,
    pub problem: String,
}

impl Complaint {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
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
        state: file.daemon.state,
        runtime: file.daemon.runtime,
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

fn service(name: &str, fragment: Service) -> Result<ServiceSettings, Vec<Complaint>> {
    let mut complaints = Vec::new();
    name_is_plain(name, &mut complaints);
    let source = keep(source(&fragment.source), &mut complaints);
    let plugins = keep(plugins(&fragment.plugins, fragment.source.npm.is_some()), &mut complaints);
    let version = keep(version(&fragment), &mut complaints);
    let notify = keep(notify("notify", &fragment.notify), &mut complaints).unwrap_or_default();
    let websocket = keep(websocket(&fragment), &mut complaints).flatten();
    let listen = keep(addresses(fragment.listen.as_ref()), &mut complaints).unwrap_or_default();
    let port = keep(port(fragment.port.as_ref()), &mut complaints).unwrap_or(Port::Auto);
    let entry = keep(entry(&fragment), &mut complaints).unwrap_or_default();
    let strategy = match fragment.strategy {
        Some(StrategyFragment::Signal) => Strategy::Signal,
        Some(StrategyFragment::StopStart) | None => Strategy::StopStart,
    };
    rules(&fragment, &listen, port, &mut complaints);
    complaints.extend(super::trust::exposed(&fragment, &listen));
    let intake = intake(fragment.inputs, &listen);
    let clearance = clearance(&fragment.policy).unwrap_or_else(|more| {
        complaints.extend(more);
        Clearance::default()
    });
    let policy = Policy { clearance, ..policy(&fragment.policy, &fragment) };
    let questions = keep(questions(&fragment.preflight.data), &mut complaints).unwrap_or_default();
    let idle = keep(idle(&fragment), &mut complaints).flatten();
    let repair = keep(repair(&fragment), &mut complaints).flatten();
    let state = fragment.state.iter().map(|state| state_settings(state, &fragment.env)).collect();
    let (Some(source), Some(version), true) = (source, version, complaints.is_empty()) else {
        return Err(complaints);
    };
    Ok(ServiceSettings {
        name: name.to_owned(),
        source,
        plugins: plugins.unwrap_or_default(),
        command: fragment.command,
        entry,
        listen,
        port,
        user: fragment.user,
        group: fragment.group,
        cwd: fragment.cwd.unwrap_or_else(|| "{root}".into()),
        env: fragment.env,
        env_file: fragment.env_file,
        node: fragment.node,
        strategy,
        forwarded: forwarded(fragment.forwarded),
        intake,
        button: button(fragment.update_button),
        check_every: Some(fragment.check_every.map_or(CHECK_EVERY, |span| span.0))
            .filter(|every| !every.is_zero()),
        live: fragment.probe.live,
        ready: fragment.probe.ready,
        page: fragment.probe.page,
        websocket,
        version,
        idle,
        probe_headers: fragment.probe.headers,
        probe_timeout: fragment.probe.timeout.map_or(Duration::from_secs(5), |span| span.0),
        state,
        notify,
        policy,
        restart_prevent_exit_status: fragment.policy.restart_prevent_exit_status,
        restart_force_exit_status: fragment.policy.restart_force_exit_status,
        preflight: preflight(&fragment.preflight),
        validate: fragment.preflight.validate,
        repair,
        questions,
        held_max: fragment.policy.held_max.unwrap_or(4096),
        log_size: fragment.policy.log_size.map_or(10 << 20, |size| size.0),
        log_files: fragment.policy.log_files.unwrap_or(5),
    })
}

fn keep<T>(result: Result<T, Complaint>, complaints: &mut Vec<Complaint>) -> Option<T> {
    result.map_err(|complaint| complaints.push(complaint)).ok()
}

fn intake(inputs: Option<InputsFragment>, listen: &[SocketAddr]) -> Intake {
    match inputs {
        _ if listen.is_empty() => Intake::Direct,
        Some(InputsFragment::Own) => Intake::Own,
        Some(InputsFragment::Front) | None => Intake::Front,
    }
}

fn name_is_plain(name: &str, complaints: &mut Vec<Complaint>) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) || name.starts_with('-') {
        complaints.push(Complaint::new("", "a service's name is made of a-z, 0-9 and -, at most 40 of them"));
    }
}

fn source(source: &Source) -> Result<SourceSettings, Complaint> {
    let channel = source.channel.clone().unwrap_or_else(|| "latest".into());
    match (&source.directory, &source.npm) {
        (Some(directory), None) if directory.is_absolute() => {
            Ok(SourceSettings::Directory { directory: directory.clone(), channel })
        }
        (Some(_), None) => Err(Complaint::new("source.directory", "write an absolute path")),
        (None, Some(package)) => Ok(SourceSettings::Npm {
            package: package.clone(),
            channel,
            registry: source.registry.clone(),
            npm: source.npm_command.clone(),
            scripts: match source.scripts {
                Some(ScriptsFragment::On) => Scripts::On,
                Some(ScriptsFragment::Own) => Scripts::Own,
                Some(ScriptsFragment::Off) | None => Scripts::Off,
            },
        }),
        _ => Err(Complaint::new("source", "name exactly one of `directory` and `npm`")),
    }
}

fn version(service: &Service) -> Result<VersionSettings, Complaint> {
    let version = &service.probe.version;
    let (build, instance) = (version.build.clone(), version.instance.clone());
    let is_known =
        version.pointer.is_none() && build.is_none() && instance.is_none() && version.plugins.is_none();
    match (&version.http, &version.openclaw) {
        (Some(path), None) if path.starts_with('/') => Ok(VersionSettings::Http {
            path: path.clone(),
            pointer: version.pointer.clone().unwrap_or_else(|| "/version".into()),
            build,
            instance,
            plugins: version.plugins.clone(),
        }),
        (Some(_), None) => Err(Complaint::new("probe.version.http", "a path begins with /")),
        (None, Some(token)) if is_known => Ok(VersionSettings::OpenClaw { token: token.clone() }),
        (None, Some(_)) => Err(Complaint::new(
            "probe.version",
            "with `openclaw` leave the pointers out: it is known where its handshake has them",
        )),
        _ => Err(Complaint::new(
            "probe.version",
            "name exactly one of `http` and `openclaw`: without the service's own answer nothing can be proven",
        )),
    }
}

fn websocket(service: &Service) -> Result<Option<WebSocketSettings>, Complaint> {
    let Some(WebSocketFragment { path, pointer, equals }) = &service.probe.websocket else { return Ok(None) };
    let complaint = |key: &str, problem: &str| Err(Complaint::new(format!("probe.websocket{key}"), problem));
    if service.probe.version.openclaw.is_some() {
        return complaint(
            "",
            "leave it out: OpenClaw's handshake begins with that frame, and is asked already",
        );
    }
    if !path.starts_with('/') {
        return complaint(".path", "a path begins with /");
    }
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return complaint(".pointer", "a JSON pointer begins with /, for example \"/event\"");
    }
    Ok(Some(WebSocketSettings { path: path.clone(), pointer: pointer.clone(), equals: equals.clone() }))
}

fn addresses(listen: Option<&OneOrMany>) -> Result<Vec<SocketAddr>, Complaint> {
    let texts: Vec<String> = match listen {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text.clone()],
        Some(OneOrMany::Many(texts)) => texts.clone(),
    };
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                Complaint::new(
                    "listen",
                    format!("`{text}` is not an address; write for example \"127.0.0.1:8080\""),
                )
            })
        })
        .collect()
}

fn port(port: Option<&PortFragment>) -> Result<Port, Complaint> {
    match port {
        None => Ok(Port::Auto),
        Some(PortFragment::Word(word)) if word == "auto" => Ok(Port::Auto),
        Some(PortFragment::Number(number)) if *number > 0 => Ok(Port::Fixed(*number)),
        Some(_) => Err(Complaint::new("port", "write a number from 1 to 65535, or \"auto\"")),
    }
}

/// The first word below `{root}` is the code that runs.
fn entry(service: &Service) -> Result<String, Complaint> {
    if service.command.is_empty() {
        return Err(Complaint::new("command", "name a program"));
    }
    if let Some(entry) = &service.entry {
        return Ok(entry.clone());
    }
    service.command.iter().find(|word| word.starts_with("{root}/")).cloned().ok_or_else(|| {
        Complaint::new(
            "command",
            "no word begins with `{root}/`: nothing would prove which code runs; or name `entry`",
        )
    })
}

/// Rules that concern several keys at once.
fn rules(service: &Service, listen: &[SocketAddr], port: Port, complaints: &mut Vec<Complaint>) {
    if listen.is_empty() && port == Port::Auto {
        complaints
            .push(Complaint::new("port", "without `listen` clients use the service's own port: name it"));
    }
    if listen.is_empty() && button(service.update_button).is_some() {
        complaints.push(Complaint::new(
            "update_button",
            "the button is answered in the front, which needs `listen`; name the addresses or leave this key out",
        ));
    }
    let port_is_passed =
        service.command.iter().chain(service.env.values()).any(|word| word.contains("{port}"));
    if port == Port::Auto && !port_is_passed {
        complaints.push(Complaint::new(
            "command",
            "`{port}` appears neither here nor in `env`: the service would not learn its port",
        ));
    }
    let asked = service.preflight.data.iter().map(|question| ("preflight.data", &question.ask));
    let commands = [("command", &service.command), ("preflight.validate", &service.preflight.validate)];
    let mends = service.preflight.repair.iter().map(|repair| ("preflight.repair.run", &repair.run));
    for (key, words) in commands.into_iter().chain(asked).chain(mends) {
        if words.iter().any(|word| word.contains("{node}")) && service.node.is_none() {
            let problem = format!("`{{node}}` is used in `{key}`: name the interpreter's path");
            complaints.push(Complaint::new("node", problem));
        }
    }
    if matches!(service.strategy, Some(StrategyFragment::Signal)) && !service.state.is_empty() {
        complaints.push(Complaint::new(
            "strategy",
            "`signal` cannot copy declared state while the service is stopped; use \"stop-start\"",
        ));
    }
    if service.probe.live.is_none() && service.probe.ready.is_none() {
        complaints.push(Complaint::new("probe", "name at least one of `live` and `ready`"));
    }
    if service.state.is_empty() && !service.preflight.data.is_empty() {
        complaints
            .push(Complaint::new("preflight.data", "no `state` is declared that it could be asked about"));
    }
    for (at, state) in service.state.iter().enumerate() {
        let path = located(&state.path, &service.env);
        if !path.is_absolute() && !path.starts_with(HOME) {
            let problem =
                "write an absolute path, or one that begins with {home}/ or {env:NAME}, a variable in `env`";
            complaints.push(Complaint::new(format!("state[{at}].path"), problem));
        }
    }
    let PolicyFragment { restart_prevent_exit_status: prevent, restart_force_exit_status: force, .. } =
        &service.policy;
    if let Some(code) = force.iter().find(|code| prevent.contains(code)) {
        let problem = format!("{code} stands in `restart_prevent_exit_status` too: it can mean one of them");
        complaints.push(Complaint::new("policy.restart_force_exit_status", problem));
    }
    if service.policy.streak == Some(0) {
        complaints.push(Complaint::new("policy.streak", "at least one passing round proves a process"));
    }
}

fn button(button: Option<ButtonFragment>) -> Option<Button> {
    match button {
        Some(ButtonFragment::OpenClaw) => Some(Button::OpenClaw),
        Some(ButtonFragment::None) | None => None,
    }
}

fn forwarded(forwarded: Option<ForwardedFragment>) -> cutover_front::Forwarded {
    match forwarded {
        None | Some(ForwardedFragment::None) => cutover_front::Forwarded::None,
        Some(ForwardedFragment::XForwarded) => cutover_front::Forwarded::XForwarded,
        Some(ForwardedFragment::XForwardedRemote) => cutover_front::Forwarded::XForwardedRemote,
        Some(ForwardedFragment::Rfc7239) => cutover_front::Forwarded::Rfc7239,
    }
}

fn state_settings(
    fragment: &super::fragment::StateFragment,
    env: &BTreeMap<String, String>,
) -> StateSettings {
    let kind = match fragment.kind {
        StateKind::Files => crate::store::snapshot::StateKind::Files,
        StateKind::Sqlite => crate::store::snapshot::StateKind::Sqlite,
    };
    StateSettings { path: located(&fragment.path, env), kind }
}

/// A path with the service's own variables filled in. Whose home `{home}` is, is known where the service runs.
pub(super) fn located(path: &Path, env: &BTreeMap<String, String>) -> PathBuf {
    PathBuf::from(fill_env(&path.to_string_lossy(), env))
}

fn preflight(fragment: &PreflightFragment) -> BTreeMap<String, Level> {
    let kinds = [
        ("import", fragment.import),
        ("files", fragment.files),
        ("lock", fragment.lock),
        ("engines", fragment.engines),
        ("native", fragment.native),
        ("empty", fragment.empty),
        ("link", fragment.link),
        ("access", fragment.access),
        ("port", fragment.port),
        ("supervisor", fragment.supervisor),
        ("version", fragment.version),
        ("configuration", fragment.configuration),
        ("group", fragment.group),
        ("plugins", fragment.plugins),
        ("schema", fragment.schema),
    ];
    let level = |fragment| match fragment {
        LevelFragment::Block => Level::Block,
        LevelFragment::Warn => Level::Warn,
        LevelFragment::Note => Level::Note,
    };
    kinds.into_iter().filter_map(|(kind, given)| Some((kind.to_owned(), level(given?)))).collect()
}

/// Findings as a policy weighs them. What is only good to know stays so.
#[must_use]
pub fn weighed(findings: Vec<Finding>, policy: &BTreeMap<String, Level>) -> Vec<Finding> {
    let weigh = |finding: Finding| match policy.get(&finding.kind) {
        Some(level) if finding.level > Level::Note => Finding { level: *level, ..finding },
        _ => finding,
    };
    findings.into_iter().map(weigh).collect()
}

fn policy(fragment: &PolicyFragment, service: &Service) -> Policy {
    let default = Policy::default();
    let span = |given: Option<super::amount::Span>, default: Duration| given.map_or(default, |span| span.0);
    let restore = match fragment.restore_after_release {
        Some(true) => RestoreAfterRelease::Allowed,
        Some(false) | None => RestoreAfterRelease::Refused,
    };
    let loses_writes = !service.state.is_empty() && restore == RestoreAfterRelease::Refused;
    Policy {
        stop_grace: span(fragment.stop_grace, default.stop_grace),
        start_deadline: span(fragment.start_deadline, default.start_deadline),
        hard_cap: span(fragment.hard_cap, default.hard_cap),
        soak: span(fragment.soak, default.soak),
        watch: span(fragment.watch, default.watch),
        hold: span(fragment.hold, default.hold),
        drain: span(fragment.drain, default.drain),
        probe_interval: span(fragment.probe_interval, default.probe_interval),
        streak: fragment.streak.unwrap_or(default.streak),
        crash_limit: fragment.crash_limit.unwrap_or(default.crash_limit),
        crash_window: span(fragment.crash_window, default.crash_window),
        backoff_first: span(fragment.backoff_first, default.backoff_first),
        backoff_cap: span(fragment.backoff_cap, default.backoff_cap),
        keep: fragment.keep.unwrap_or(default.keep),
        rollback: match fragment.rollback {
            Some(RollbackFragment::Never) => RollbackRule::Never,
            Some(RollbackFragment::Auto) | None => RollbackRule::Auto,
        },
        release: match fragment.release {
            Some(ReleaseFragment::AfterProve) => ReleaseRule::AfterProve,
            Some(ReleaseFragment::AfterSoak) => ReleaseRule::AfterSoak,
            None if loses_writes => ReleaseRule::ByData,
            None => ReleaseRule::AfterProve,
        },
        restore_after_release: restore,
        rehearse: match fragment.rehearse {
            Some(RehearseFragment::Never) => RehearsalRule::Never,
            Some(RehearseFragment::Always) => RehearsalRule::Always,
            Some(RehearseFragment::Auto) | None => RehearsalRule::Auto,
        },
        repair: repair_rule(fragment.repair),
        clearance: default.clearance,
    }
}

/// Replaces `{root}`, `{port}`, `{node}`, `{home}` and `{env:NAME}`.
#[must_use]
pub(crate) fn fill(
    template: &str,
    root: &Path,
    port: u16,
    settings: &ServiceSettings,
    env: &BTreeMap<String, String>,
) -> String {
    let mut text = template.replace("{root}", &root.to_string_lossy()).replace("{port}", &port.to_string());
    if let Some(node) = &settings.node {
        text = text.replace("{node}", &node.to_string_lossy());
    }
    if let Some(home) = env.get("HOME") {
        text = text.replace(HOME, home);
    }
    fill_env(&text, env)
}

fn fill_env(template: &str, env: &BTreeMap<String, String>) -> String {
    let mut text = template.to_owned();
    while let Some(start) = text.find("{env:") {
        let Some(end) = text[start..].find('}') else { break };
        let value = env.get(&text[start + 5..start + end]).cloned().unwrap_or_default();
        text.replace_range(start..=start + end, &value);
    }
    text
}
