//! The file as people write it. Every key is optional here that has a default; unknown keys are errors.

use super::amount::{Size, Span};
use super::idle::IdleFragment;
use super::notify::NotifyFragment;
use super::plugins::PluginFragment;
use super::question::QuestionFragment;
use super::repair::{RepairFragment, RepairRuleFragment};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A configuration file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The daemon itself.
    #[serde(default)]
    pub daemon: Daemon,
    /// The services, by name.
    #[serde(default)]
    pub service: BTreeMap<String, Service>,
}

/// The daemon itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Daemon {
    /// Address of the HTTP API (default "127.0.0.1:7117"; "off" for none).
    pub listen: Option<String>,
    /// Further host names that requests may be addressed to.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Where journal, generations, snapshots and logs live.
    pub state: Option<PathBuf>,
    /// Where sockets and intents live.
    pub runtime: Option<PathBuf>,
    /// Who is told of every service, beside those whom the service names.
    #[serde(default)]
    pub notify: Vec<NotifyFragment>,
}

/// One service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    /// What is known of such a service: every key that is not written here has the value from there, tables key by key.
    pub preset: Option<Preset>,
    /// Where releases come from. Required without a `preset`.
    #[serde(default)]
    pub source: Source,
    /// Plugins that are installed, switched and taken back together with it.
    #[serde(default)]
    pub plugins: Vec<PluginFragment>,
    /// Program and arguments; `{root}` is the package's directory in the generation, `{port}` the service's own port,
    /// `{plugin:NAME}` a plugin's directory. Required without a `preset`.
    #[serde(default)]
    pub command: Vec<String>,
    /// The file that proves which code runs; default: the first word of `command` below `{root}`.
    pub entry: Option<String>,
    /// Addresses of the front, which clients use. Without it clients reach the service's own port and nothing is held.
    pub listen: Option<OneOrMany>,
    /// The service's own port: a number, or "auto" (kept across runs).
    pub port: Option<PortFragment>,
    /// Who runs the service and its package manager (needs a root daemon).
    pub user: Option<String>,
    /// Its group; default: the user's.
    pub group: Option<String>,
    /// Its working directory; default `{root}`.
    pub cwd: Option<String>,
    /// Its environment, beside what is inherited (above) and `env_file`; it goes before both.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A file of KEY=VALUE lines, for secrets.
    pub env_file: Option<PathBuf>,
    /// The interpreter: `{node}` in `command`, and what runs npm.
    pub node: Option<PathBuf>,
    /// How the restart is done (default "stop-start").
    pub strategy: Option<StrategyFragment>,
    /// Headers that the front adds (default "none").
    pub forwarded: Option<ForwardedFragment>,
    /// Where the service's work comes from (default "front").
    pub inputs: Option<InputsFragment>,
    /// Whose "update now" button is answered here instead of by the service (default "none").
    pub update_button: Option<ButtonFragment>,
    /// How often the source is asked what the followed channel names; "0": never (default "1h").
    pub check_every: Option<Span>,
    /// How to ask the live process. Required without a `preset`.
    #[serde(default)]
    pub probe: Probe,
    /// Declared state: copied before the first start of a new version, restored on rollback.
    #[serde(default)]
    pub state: Vec<StateFragment>,
    /// Who is told of its runs and alarms.
    #[serde(default)]
    pub notify: Vec<NotifyFragment>,
    /// Limits and rules.
    #[serde(default)]
    pub policy: PolicyFragment,
    /// What a preflight asks, and what its findings weigh here, by their kind; without a word they weigh what they seem to.
    #[serde(default)]
    pub preflight: PreflightFragment,
}

/// Presets that are known.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preset {
    /// OpenClaw's gateway.
    OpenClaw,
}

/// Where releases come from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// A directory with one subdirectory per version.
    pub directory: Option<PathBuf>,
    /// An npm package.
    pub npm: Option<String>,
    /// The dist-tag or link that `update` follows (default "latest").
    pub channel: Option<String>,
    /// The npm registry; default: what npm is configured to use.
    pub registry: Option<String>,
    /// How npm is called (default ["npm"]); `node`'s directory comes first on its PATH.
    pub npm_command: Option<Vec<String>>,
    /// Whether packages' lifecycle scripts run (default "off"); "own": those of the package itself, no other's.
    pub scripts: Option<ScriptsFragment>,
}

/// One value or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// A port.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PortFragment {
    /// This one.
    Number(u16),
    /// "auto".
    Word(String),
}

/// Restart strategies.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StrategyFragment {
    /// The old process is stopped, the new one started by us.
    StopStart,
    /// The service ends itself on SIGUSR1 with a one-shot intent.
    Signal,
}

/// Forwarded headers.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ForwardedFragment {
    /// None are added.
    None,
    /// X-Forwarded-For, -Host and -Proto.
    XForwarded,
    /// The same for clients of other machines, and none for those of this one.
    XForwardedRemote,
    /// Forwarded, as RFC 7239 has it.
    Rfc7239,
}

/// Buttons that are known.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ButtonFragment {
    /// None: the service answers all calls itself.
    None,
    /// OpenClaw's Control UI and its other clients: their `update.*` calls do not reach the gateway.
    OpenClaw,
}

/// Where work comes from.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum InputsFragment {
    /// Only through the front.
    Front,
    /// The service also fetches work itself.
    Own,
}

/// Lifecycle scripts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ScriptsFragment {
    /// They do not run.
    Off,
    /// Those of the package itself run, no other package's.
    Own,
    /// They run.
    On,
}

/// How to ask the live process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Probe {
    /// Path of the liveness endpoint.
    pub live: Option<String>,
    /// Path of the readiness endpoint.
    pub ready: Option<String>,
    /// Path of a page that users open: it must be HTML. Empty: none, though the `preset` names one.
    #[serde(default, deserialize_with = "unless_empty")]
    pub page: Option<String>,
    /// A WebSocket that users' clients open: what it must be greeted with. OpenClaw's handshake is asked without a word here.
    pub websocket: Option<WebSocketFragment>,
    /// How the service states its version. Required, here or in the `preset`: without it nothing can be proven.
    #[serde(default)]
    pub version: Version,
    /// How the service tells whether it has work under way; see `policy.idle_wait`.
    pub idle: Option<IdleFragment>,
    /// Headers sent with every probe; a value may be `{env:NAME}`, read from the service's environment.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Limit of one request (default 5s).
    pub timeout: Option<Span>,
}

/// An empty text says that there is none: so a file takes back what its preset says.
fn unless_empty<'de, D: Deserializer<'de>>(text: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(text)?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// What a client that opens a WebSocket gets without asking.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebSocketFragment {
    /// Its path.
    pub path: String,
    /// JSON pointer into the first text frame.
    pub pointer: String,
    /// The string that must stand there.
    pub equals: String,
}

/// How the service states its version.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    /// A path that answers with JSON.
    pub http: Option<String>,
    /// The token of an OpenClaw gateway, as `{env:NAME}`: its WebSocket `hello-ok` states the version.
    pub openclaw: Option<String>,
    /// JSON pointer to the version (default "/version"). With `openclaw` the three pointers are known.
    pub pointer: Option<String>,
    /// JSON pointer to a build id, where there is one.
    pub build: Option<String>,
    /// JSON pointer to an id that changes with every start, where there is one.
    pub instance: Option<String>,
    /// JSON pointer to the plugins that run: a list of `id@version` or of `{id, version}`. An id alone proves no version.
    pub plugins: Option<String>,
}

/// A piece of declared state.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StateFragment {
    /// Where it lies; may begin with `{home}/` or `{env:NAME}`, the home and a variable of the service.
    pub path: PathBuf,
    /// What it is.
    pub kind: StateKind,
    /// Who wrote it.
    #[serde(skip)]
    pub by: DeclaredBy,
}

/// Who declared a piece of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeclaredBy {
    /// Whoever wrote the file.
    #[default]
    File,
    /// Its preset, where the file says nothing.
    Preset,
}

/// Kinds of state.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StateKind {
    /// A file or a directory.
    Files,
    /// An SQLite database with its companions.
    Sqlite,
}

/// Limits and rules; see the documentation for the defaults.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyFragment {
    /// From TERM to KILL (10s).
    pub stop_grace: Option<Span>,
    /// Start to readiness without observed progress (60s).
    pub start_deadline: Option<Span>,
    /// Upper bound of every act but Await, Drain, Stop, Signal and Soak, which follow from other keys (10min).
    pub hard_cap: Option<Span>,
    /// Unbroken proof under traffic before the commit (30s).
    pub soak: Option<Span>,
    /// How long after the commit a failing version is reverted by itself (15min).
    pub watch: Option<Span>,
    /// How long the front holds a request (30s).
    pub hold: Option<Span>,
    /// How many requests the front holds at most (4096).
    pub held_max: Option<usize>,
    /// How long in-flight requests may finish at the stop (10s).
    pub drain: Option<Span>,
    /// Between two rounds of probing (200ms).
    pub probe_interval: Option<Span>,
    /// Rounds in a row that prove a process (4).
    pub streak: Option<u32>,
    /// Crashes within `crash_window` that revert a watched version (5).
    pub crash_limit: Option<u32>,
    /// The window of `crash_limit` (60s).
    pub crash_window: Option<Span>,
    /// First restart delay (10ms).
    pub backoff_first: Option<Span>,
    /// Largest restart delay (60s).
    pub backoff_cap: Option<Span>,
    /// Exit codes after which it is not started again by itself, as systemd's `RestartPreventExitStatus=` ([]).
    #[serde(default)]
    pub restart_prevent_exit_status: Vec<i32>,
    /// Exit codes by which a process that has proven itself asks to be started again, as systemd's
    /// `RestartForceExitStatus=` ([]): no crash, and in the soak no fault.
    #[serde(default)]
    pub restart_force_exit_status: Vec<i32>,
    /// Generations kept beside the current one (2).
    pub keep: Option<u32>,
    /// "auto" (the default): back to the old version; or "never": maintenance, and a person decides.
    pub rollback: Option<RollbackFragment>,
    /// When held traffic is let through; default "after-prove", or "after-soak" where a rollback would lose writes.
    pub release: Option<ReleaseFragment>,
    /// Whether an automatic rollback may give up writes made after the release (false).
    pub restore_after_release: Option<bool>,
    /// Whether a new version is first started in isolation, on a copy of the state, before anything stops (default "auto").
    pub rehearse: Option<RehearseFragment>,
    /// Whether an update waits for `cutover approve` before anything stops (default "never").
    pub approve: Option<ApproveFragment>,
    /// When an update may stop the service; without a word at any time.
    #[serde(default)]
    pub windows: Vec<WindowFragment>,
    /// How long a prepared update waits for its approval and its window (14d).
    pub await_limit: Option<Span>,
    /// How long an update waits, with clients being served, until the service says that no work is under way (2min); "0s":
    /// not at all.
    pub idle_wait: Option<Span>,
    /// What becomes of a configuration that the target refuses and can mend by itself (default "offer").
    pub repair: Option<RepairRuleFragment>,
    /// Size at which the service's log is rotated (10MiB).
    pub log_size: Option<Size>,
    /// Rotated log files kept (5).
    pub log_files: Option<u32>,
}

/// What is asked before anything stops, and what warnings and blocks weigh, by their kind.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreflightFragment {
    /// Imports that find nothing, or not the name that they ask for.
    pub import: Option<LevelFragment>,
    /// Declared files of the package that are not there.
    pub files: Option<LevelFragment>,
    /// Packages that the lock names and that are not installed, or not as it says.
    pub lock: Option<LevelFragment>,
    /// Ranges of node versions that the service's interpreter is not in.
    pub engines: Option<LevelFragment>,
    /// Native modules that the service's interpreter cannot load.
    pub native: Option<LevelFragment>,
    /// Files that have content in the running version and none in the new one.
    pub empty: Option<LevelFragment>,
    /// Links that lead nowhere.
    pub link: Option<LevelFragment>,
    /// Paths that the service's user cannot write.
    pub access: Option<LevelFragment>,
    /// A stranger on the service's own port.
    pub port: Option<LevelFragment>,
    /// Others who start the same service.
    pub supervisor: Option<LevelFragment>,
    /// A version probe that does not work on what runs.
    pub version: Option<LevelFragment>,
    /// A configuration that the target's own validator does not accept.
    pub configuration: Option<LevelFragment>,
    /// Users, groups and paths that contradict each other.
    pub group: Option<LevelFragment>,
    /// Plugins of the settings that the new version goes without.
    pub plugins: Option<LevelFragment>,
    /// Data of which the target's own command says that it cannot use it, or says nothing that is known.
    pub schema: Option<LevelFragment>,
    /// What the target is asked about declared data; without it declared data counts as migrated.
    #[serde(default)]
    pub data: Vec<QuestionFragment>,
    /// The target's own validator, with placeholders as in `command`: exit code 0 accepts. Run in a sandbox, on a copy of
    /// `state`.
    #[serde(default)]
    pub validate: Vec<String>,
    /// The target's own repair of a configuration that it refuses; see `policy.repair`.
    pub repair: Option<RepairFragment>,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LevelFragment {
    /// The update ends before anything stops.
    Block,
    /// It is told, and the update goes on.
    Warn,
    /// It is told as good to know.
    Note,
}

/// Approval rules.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ApproveFragment {
    /// It does not, unless somebody holds it.
    Never,
    /// Each update does.
    Always,
}

/// Hours in which an update may stop the service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowFragment {
    /// The days on which it begins; default: every day.
    pub days: Option<Vec<DayFragment>>,
    /// When it begins, as "02:00".
    pub from: String,
    /// When it ends; no later than `from` means of the next day.
    pub to: String,
    /// The time zone of its clock, as "Europe/Berlin" or "UTC"; default: the machine's when the daemon begins.
    pub zone: Option<String>,
}

/// Days of the week.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DayFragment {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// Rehearsal rules.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RehearseFragment {
    /// Where there is memory for a second process and the kernel isolates it; the report says why not.
    Auto,
    /// What "auto" leaves out ends the update before anything stops.
    Always,
    /// Never.
    Never,
}

/// Rollback rules.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RollbackFragment {
    /// Back to the old version, proven, where the data allows it.
    Auto,
    /// Declared maintenance; a person decides.
    Never,
}

/// Release rules.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ReleaseFragment {
    /// As soon as the new process has proven itself once.
    AfterProve,
    /// Only after the soak.
    AfterSoak,
}
