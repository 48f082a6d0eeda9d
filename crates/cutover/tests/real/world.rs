//! One machine's worth of cutover below one temporary directory: the configuration of `examples/openclaw.toml` or of
//! another service, the daemon as a process of its own, and the command line as a person uses it.
//!
//! It knows how to start, ask and clear away; it must not know what a test expects.

use cutover::conductor::View;
use cutover::demo;
use cutover::store::Store;
use cutover_core::{Generation, Report, RunId};
use cutover_testkit::openclaw::{Client, Hello, PLUGIN, PROGRESS_LINES, PROGRESS_LINES_ID, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command as Asking;
use tokio::time::{sleep, timeout};
use toml::{Table, Value};

/// The gateway's name, as in the example.
const GATEWAY: &str = "openclaw";
/// The gateway's token.
pub(crate) const TOKEN: &str = "only-for-this-test";
/// No channel of anybody's, no timers, and no second port.
const QUIET: [&str; 3] =
    ["OPENCLAW_SKIP_CHANNELS", "OPENCLAW_SKIP_CRON", "OPENCLAW_SKIP_BROWSER_CONTROL_SERVER"];
/// How long an answer of the gateway may take on a machine that is busy with other things.
pub(crate) const CALL: Duration = Duration::from_secs(150);

/// How long clients may have to wait, and a gateway to be ready, where other things are built and tested at the same time.
/// It is more than the preset's, so that what is slow here is not taken for what is broken.
pub(crate) const HOLD: Duration = Duration::from_secs(300);

/// A whole run: an installation from a cold cache, a cold start, a rollback.
pub(crate) const RUN: Duration = Duration::from_secs(1500);
/// Everything that is not a run.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);

pub(crate) struct World {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    service: String,
    /// Where clients reach the service.
    pub(crate) front: [SocketAddr; 2],
}

impl World {
    /// A world for one service of this name, whose settings are still to be written.
    pub(crate) fn of(service: &str, cache: &Path) -> World {
        let directory = tempfile::Builder::new().prefix("cutover-real-").tempdir().unwrap();
        let world = World { directory, daemon: None, service: service.to_owned(), front: free_address() };
        for name in ["home", "tmp", "claw"] {
            fs::create_dir(world.path().join(name)).unwrap();
        }
        // What this machine's npm has fetched already is not fetched again: a registry may have a bad minute.
        let fetched = cache.join("npm");
        fs::create_dir_all(&fetched).unwrap();
        fs::create_dir(world.state()).unwrap();
        fs::set_permissions(world.state(), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(fs::canonicalize(fetched).unwrap(), world.state().join("npm-cache"))
            .unwrap();
        world
    }

    /// Writes these settings of its service, with what is this world's own.
    pub(crate) fn settle(&self, mut service: Table) {
        let listen = self.front.map(|address| Value::from(address.to_string()));
        service.insert("listen".into(), listen.to_vec().into());
        let limit = || Value::from(format!("{}s", HOLD.as_secs()));
        let policy = [("soak", "10s".into()), ("hold", limit()), ("start_deadline", limit())];
        let policy = Table::from_iter(policy.map(|(key, value)| (key.to_owned(), value)));
        service.insert("policy".into(), policy.into());
        self.write(Table::from_iter([(self.service.clone(), Value::from(service))]));
    }

    /// Writes that there is no service yet.
    pub(crate) fn bare(&self) {
        self.write(Table::new());
    }

    fn write(&self, services: Table) {
        let mut daemon = Table::new();
        daemon.insert("listen".into(), "off".into());
        daemon.insert("state".into(), text(&self.state()));
        let config =
            Table::from_iter([("service".to_owned(), services.into()), ("daemon".into(), daemon.into())]);
        fs::write(self.config(), config.to_string()).unwrap();
    }

    /// The gateway as the example has it, with this world's own paths, ports, node and registry.
    pub(crate) fn new(runtime: &Runtime, cache: &Path, registry: &str) -> World {
        let world = World::of(GATEWAY, cache);
        let secret = world.path().join("gateway.env");
        fs::write(&secret, format!("OPENCLAW_GATEWAY_TOKEN={TOKEN}\n")).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();

        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/openclaw.toml");
        let mut config: Table = fs::read_to_string(example).unwrap().parse().unwrap();
        let service = config["service"][GATEWAY].as_table_mut().unwrap();
        replace(service, "node", text(&runtime.node()));
        replace(service, "env_file", text(&secret));
        let env = service["env"].as_table_mut().unwrap();
        replace(env, "OPENCLAW_STATE_DIR", text(&world.claw()));
        env.extend(QUIET.map(|name| (name.to_owned(), Value::from("1"))));
        // The rest is the preset's.
        let registry = Table::from_iter([("registry".to_owned(), Value::from(registry))]);
        service.insert("source".into(), registry.into());
        world.settle(std::mem::take(service));
        fs::write(world.claw().join("openclaw.json"), own_configuration().to_string()).unwrap();
        world
    }

    /// Before the daemon is started: the gateway with the test's own plugin.
    pub(crate) fn with_lines(self) -> World {
        self.configure(|service| {
            let plugin = [("npm", PROGRESS_LINES), ("id", PROGRESS_LINES_ID)];
            let plugin = Table::from_iter(plugin.map(|(key, value)| (key.to_owned(), Value::from(value))));
            service.insert("plugins".into(), vec![Value::from(plugin)].into());
            let place = format!("{{plugin:{PROGRESS_LINES}}}");
            service["env"].as_table_mut().unwrap().insert("PROGRESS_LINES".into(), place.into());
        });
        let mut own = own_configuration();
        own["plugins"] = serde_json::json!({
            "load": {"paths": ["${PROGRESS_LINES}"]},
            "entries": {PROGRESS_LINES_ID: {"enabled": true}},
        });
        fs::write(self.claw().join("openclaw.json"), own.to_string()).unwrap();
        self
    }

    /// Before the daemon is started: and with the plugin of the gateway's makers that has its own version's number. It takes that
    /// only from where it has installed it itself, in its state.
    pub(crate) fn with_discord(self) -> World {
        self.configure(|service| {
            let project = "{env:OPENCLAW_STATE_DIR}/npm/projects/discord";
            let plugin = [("npm", PLUGIN), ("version", "{version}"), ("project", project)];
            let plugin = Table::from_iter(plugin.map(|(key, value)| (key.to_owned(), Value::from(value))));
            service["plugins"].as_array_mut().unwrap().push(plugin.into());
        });
        let file = self.claw().join("openclaw.json");
        let mut own: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        own["plugins"]["entries"]["discord"] = serde_json::json!({"enabled": true});
        fs::write(file, own.to_string()).unwrap();
        self
    }

    /// Changes what is configured of the service, for the daemon that is started next.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Table)) {
        let mut config: Table = fs::read_to_string(self.config()).unwrap().parse().unwrap();
        change(config["service"][self.service.as_str()].as_table_mut().unwrap());
        fs::write(self.config(), config.to_string()).unwrap();
    }

    /// Gives the service a rule, for the daemon that is started next.
    pub(crate) fn rule(&self, name: &str, value: &str) {
        self.configure(|service| {
            let policy = service["policy"].as_table_mut().unwrap();
            policy.insert(name.into(), value.into());
        });
    }

    /// Whether a version is tried before anything stops, with the daemon that is started next: `never` lets what goes
    /// wrong go wrong after the cut.
    pub(crate) fn rehearse(&self, rule: &str) {
        self.rule("rehearse", rule);
    }

    /// Where copies of the gateway's state are made for a rehearsal.
    pub(crate) fn copies(&self) -> PathBuf {
        self.store().dir().join("rehearse")
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The gateway's own state.
    pub(crate) fn claw(&self) -> PathBuf {
        self.path().join("claw")
    }

    fn config(&self) -> PathBuf {
        self.path().join("cutover.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn daemon_log(&self) -> PathBuf {
        self.path().join("daemon.log")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.state().join("services").join(&self.service))
    }

    /// The directory that a generation's process is started from.
    pub(crate) fn root(&self, generation: u32) -> PathBuf {
        self.store().root(Generation(generation)).unwrap()
    }

    /// The gateway's own command line, as somebody types it who has never heard of us.
    pub(crate) fn stock(&self, runtime: &Runtime, script: &Path) -> Asking {
        let mut command = self.at_home(&runtime.node());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [runtime.bin().to_owned()].into_iter().chain(std::env::split_paths(&path));
        command.arg(script).env("PATH", std::env::join_paths(path).unwrap());
        command.env("OPENCLAW_STATE_DIR", self.claw()).env("OPENCLAW_GATEWAY_TOKEN", TOKEN);
        command.envs(QUIET.map(|name| (name, "1")));
        Asking::from(command)
    }

    fn command(&self) -> Command {
        let mut command = self.at_home(Path::new(env!("CARGO_BIN_EXE_cutover")));
        command.arg("--config").arg(self.config());
        command
    }

    fn at_home(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .env("HOME", self.path().join("home"))
            .env("TMPDIR", self.path().join("tmp"));
        // The gateway gets a home of its own; npm goes on with what this machine says about registries.
        let settings = std::env::home_dir().map(|home| home.join(".npmrc")).filter(|path| path.exists());
        if let Some(settings) = settings.filter(|_| std::env::var_os("NPM_CONFIG_USERCONFIG").is_none()) {
            command.env("NPM_CONFIG_USERCONFIG", settings);
        }
        for name in ["CUTOVER_CONFIG", "CUTOVER_STATE", "CUTOVER_RUNTIME"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) async fn start_daemon(&mut self, words: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.daemon_log()).unwrap();
        let mut serve = self.command();
        serve.arg("serve").args(words).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(serve.spawn().unwrap());
        let begun = Instant::now();
        // Without a daemon `status` answers from the journal, `generations` does not.
        while !self.cutover(&["generations", &self.service]).await.status.success() {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().unwrap());
            assert_eq!(ended, None, "the daemon ended: {}", self.tail_of_daemon_log());
            assert!(begun.elapsed() < LIMIT, "the daemon does not answer: {}", self.tail_of_daemon_log());
            sleep(LOOK).await;
        }
    }

    /// The service's name.
    pub(crate) fn name(&self) -> &str {
        &self.service
    }

    /// The daemon's process.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// The end of a world whose daemon was ended by a person: no daemon, no front and no keeper is left.
    pub(crate) fn end_without_daemon(self) {
        let left = self.processes();
        let ours = left.iter().filter(|(_, words)| words.contains("cutover "));
        assert_eq!(ours.count(), 0, "left behind: {left:?}");
    }

    /// Kills the daemon, and nothing else, with SIGKILL.
    pub(crate) fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// The end of a run that somebody else waits for, or nobody.
    pub(crate) async fn end_of(&self, run: &RunId) -> Report {
        let begun = Instant::now();
        loop {
            let output = self.cutover(&["show", &run.0, "--json"]).await;
            let report = serde_json::from_slice::<Report>(&output.stdout);
            if let Some(report) = report.ok().filter(|report| report.ended.is_some()) {
                return report;
            }
            assert!(begun.elapsed() < RUN, "{run} does not end: {}", self.tail_of_daemon_log());
            sleep(LOOK * 5).await;
        }
    }

    /// Ends the daemon as an init system does and waits for its end.
    pub(crate) async fn end_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        terminate(&daemon);
        let ended = tokio::task::spawn_blocking(move || daemon.wait().unwrap());
        let status = timeout(LIMIT, ended).await.expect("the daemon does not end").unwrap();
        assert!(status.success(), "the daemon ended with {status}: {}", self.tail_of_daemon_log());
    }

    fn tail_of_daemon_log(&self) -> String {
        let text = fs::read_to_string(self.daemon_log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Starts a command of a person's and lets it run.
    pub(crate) fn begin(&self, words: &[&str]) -> tokio::process::Child {
        let mut command = Asking::from(self.command());
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// Runs a command of a person's to its end.
    pub(crate) async fn cutover(&self, words: &[&str]) -> Output {
        let child = self.begin(words);
        timeout(RUN, child.wait_with_output()).await.expect("the command does not end").unwrap()
    }

    /// Updates as a person does: what is printed, and the exit code.
    pub(crate) async fn update(&self, version: &str) -> (Report, i32) {
        self.reported(&["update", &self.service, "--to", version]).await
    }

    /// What a command that orders a run prints at its end, and the exit code.
    pub(crate) async fn reported(&self, words: &[&str]) -> (Report, i32) {
        let output = self.cutover(&[words, &["--json"]].concat()).await;
        let code = output.status.code().expect("the command was killed");
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{code}: no report: {error}: {said}{}", self.tail_of_daemon_log())
        });
        (report, code)
    }

    /// Orders a run and does not wait for it.
    pub(crate) async fn ordered(&self, words: &[&str]) -> RunId {
        let output = self.cutover(&[words, &["--detach", "--json"]].concat()).await;
        let told = serde_json::from_slice::<serde_json::Value>(&output.stdout);
        let run = told.ok().and_then(|told| serde_json::from_value(told["runId"].clone()).ok());
        run.unwrap_or_else(|| panic!("no run: {output:?}"))
    }

    /// What can be seen of the service.
    pub(crate) async fn view(&self) -> View {
        let output = self.cutover(&["status", &self.service, "--json"]).await;
        let views: Vec<View> = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("no view: {error}: {}", String::from_utf8_lossy(&output.stderr));
        });
        views.into_iter().next().unwrap()
    }

    /// Waits until what can be seen is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        let begun = Instant::now();
        loop {
            let view = self.view().await;
            if wanted(&view) {
                return view;
            }
            assert!(begun.elapsed() < LIMIT, "{what} does not come about: {view:#?}");
            sleep(LOOK).await;
        }
    }

    /// Waits until the staging that `command` asked for has a tree in which npm works.
    pub(crate) async fn staging_begins(&self, command: &mut tokio::process::Child) {
        let staging = self.store().dir().join("staging");
        let begun = Instant::now();
        let is_installing = || {
            let entries = fs::read_dir(&staging).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| entry.path().join("core/node_modules").exists())
        };
        while !is_installing() {
            if let Some(status) = command.try_wait().unwrap() {
                let mut said = String::new();
                command.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
                panic!("nothing was staged, {status}: {said}");
            }
            assert!(begun.elapsed() < LIMIT, "nothing is being staged: {}", self.tail_of_daemon_log());
            sleep(LOOK).await;
        }
    }

    /// What the gateway says of itself at an address.
    pub(crate) async fn hello(&self, address: SocketAddr) -> Hello {
        Client::connect(address, TOKEN, CALL).await.unwrap().hello().clone()
    }

    /// Ends everything, and finds nothing left behind.
    pub(crate) async fn end(mut self) {
        self.end_daemon().await;
        self.start_daemon(&["--stop-services"]).await;
        self.end_daemon().await;
        // A keeper hears its service's last words before it goes.
        let begun = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "left behind: {left:?}");
            sleep(LOOK).await;
        }
    }

    /// All processes whose arguments or environment name this world's directory.
    pub(crate) fn processes(&self) -> Vec<(Pid, String)> {
        let own = rustix::process::getpid();
        let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            Pid::from_raw(entry.file_name().to_str()?.parse().ok()?).filter(|pid| *pid != own)
        });
        numbers.filter_map(|pid| self.is_of_this_world(pid).map(|words| (pid, words))).collect()
    }

    fn is_of_this_world(&self, pid: Pid) -> Option<String> {
        let read =
            |what: &str| fs::read(format!("/proc/{}/{what}", pid.as_raw_nonzero())).unwrap_or_default();
        let (words, env) = (read("cmdline"), read("environ"));
        let name = self.path().as_os_str().as_bytes();
        let names_it = |bytes: &[u8]| bytes.windows(name.len()).any(|part| part == name);
        (names_it(&words) || names_it(&env)).then(|| String::from_utf8_lossy(&words).replace('\0', " "))
    }

    /// What the gateway's processes said, in files.
    pub(crate) fn logs(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let logs = fs::read_dir(self.store().dir().join("logs"));
        logs.into_iter().flatten().flatten().map(|entry| entry.path())
    }

    /// After a failure: what a person would look at, kept where the temporary directory's end does not reach it.
    fn keep_traces(&self) {
        let traces = target().join("real-failed");
        let _ = fs::remove_dir_all(&traces);
        let _ = fs::create_dir_all(&traces);
        let ours = [self.daemon_log(), self.config(), self.state().join("journal.sqlite")];
        for path in ours.into_iter().chain(self.logs()) {
            let _ = fs::copy(&path, traces.join(path.file_name().unwrap_or_default()));
        }
        let said = format!("traces are in {}\n{}\n", traces.display(), self.tail_of_daemon_log());
        let _ = std::io::stderr().write_all(said.as_bytes());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_traces();
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Keepers end with what they keep, but a gateway's end might be slow: everything at once, until nothing is left.
        let begun = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() || begun.elapsed() > LIMIT {
                break;
            }
            for (pid, _) in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
        cutover_testkit::sealed::open_up(self.path());
    }
}

/// The gateway's own configuration. Without its heartbeat: with no model to ask, that makes a session in the midst of a run
/// and keeps the gateway's only thread busy for up to half a minute on two busy cores, in which nobody is answered.
pub(crate) fn own_configuration() -> serde_json::Value {
    serde_json::json!({"gateway": {"mode": "local"}, "agents": {"defaults": {"heartbeat": {"every": "0m"}}}})
}

/// Where what outlives a test is written.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}

fn text(path: &Path) -> Value {
    path.to_str().unwrap().into()
}

/// Gives a key of the example another value; one that the example does not have would be a test of something else.
fn replace(table: &mut Table, key: &str, value: Value) {
    assert!(table.insert(key.into(), value).is_some(), "the example has no {key}");
}

fn terminate(child: &Child) {
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

/// A port that is free on both loopback addresses.
fn free_address() -> [SocketAddr; 2] {
    for _ in 0..20 {
        let four = demo::free_address().unwrap();
        let six: SocketAddr = (Ipv6Addr::LOCALHOST, four.port()).into();
        if TcpListener::bind(six).is_ok() {
            return [four, six];
        }
    }
    panic!("no port is free on both loopback addresses");
}
