//! A machine's worth of a gateway that runs without cutover: an npm project, a home, a process or a unit, and the command
//! line as a person uses it. It knows how to start, ask and clear away; it must not know what a test expects.

use crate::process::{alive, kill};
use cutover::demo::free_address;
use cutover_testkit::registry::{Package, Registry};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const VERSION: &str = "2026.5.4";
pub(crate) const UNIT: &str = "openclaw-gateway.service";
const PLUGIN: &str = "@toy/extra";
/// It says its name, and does not load without what lies beside it.
const PLUGIN_FILES: [(&str, &str); 2] =
    [("index.js", "require('beside');"), ("openclaw.plugin.json", r#"{"id": "toy-extra"}"#)];
const TOKEN: &str = "only-for-this-test";
const LIMIT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(2);

pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) port: u16,
    manner: Manner,
}

/// What a gateway is started with beside, or instead of, what every one here has.
#[derive(Default)]
pub(crate) struct Manner {
    /// Variables; one without a value is left out.
    pub(crate) env: Vec<(&'static str, Option<String>)>,
    /// Further words of its command line.
    pub(crate) words: Vec<&'static str>,
}

/// How the gateway was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    Plainly,
    ByAUnit,
    /// By a unit whose main process is a shell that waits for it.
    ByAWrapper,
    /// By a unit of the system's manager, as another account where we are root.
    ByASystemUnit,
    /// Plainly, and it writes a title over its command line.
    UnderATitle,
    /// Plainly, as another account's.
    AsAnother,
    /// By a shell that starts it again whenever it ends.
    InALoop,
    /// By a shell that starts it again whenever it ends, once a file is there.
    InALoopLater,
    /// By a program that is called as runit's is.
    ByRunit,
}

/// The other account.
pub(crate) const OTHER: u32 = 65_534;

impl World {
    /// A gateway that serves.
    pub(crate) fn serving(started: Started) -> Self {
        Self::serving_so(started, |_| Manner::default())
    }

    /// The same, started in a manner of its own.
    pub(crate) fn serving_so(started: Started, manner: impl FnOnce(&Self) -> Manner) -> Self {
        let world = Self::empty(manner);
        let package = world.package();
        for path in
            [package.join("dist"), world.units(), world.path("claw"), world.path("bin"), world.path("work")]
        {
            fs::create_dir_all(path).unwrap();
        }
        let manifest = format!(r#"{{"name":"openclaw","version":"{VERSION}"}}"#);
        fs::write(package.join("package.json"), &manifest).unwrap();
        fs::write(package.join("dist/index.js"), include_str!("gateway.cjs")).unwrap();
        let lock = format!(
            r#"{{"packages":{{"":{{}},"node_modules/openclaw":{{"version":"{VERSION}","integrity":"sha512-AAAA"}}}}}}"#
        );
        fs::write(world.path("app/package-lock.json"), lock).unwrap();
        fs::write(world.path("claw/openclaw.json"), "{}").unwrap();
        // No address of the machine's that other daemons want too.
        fs::create_dir(world.path("etc")).unwrap();
        fs::write(world.path("etc/cutover.toml"), "[daemon]\nlisten = \"off\"\n").unwrap();
        let systemctl = world.path("bin/systemctl");
        fs::write(&systemctl, include_str!("systemctl.sh")).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let line = world.write_unit(started);
        match started {
            Started::ByASystemUnit => {
                world.belongs_to_another();
                let mut unit = fs::read_to_string(world.units().join(UNIT)).unwrap();
                unit.push_str(&format!("Environment=OPENCLAW_SYSTEMD_UNIT={UNIT}\nUser={OTHER}\n"));
                fs::create_dir_all(world.system_units()).unwrap();
                fs::write(world.system_units().join(UNIT), unit).unwrap();
                fs::remove_file(world.units().join(UNIT)).unwrap();
                for verb in ["enable", "start"] {
                    assert!(
                        world.with_environment(&systemctl).args([verb, UNIT]).status().unwrap().success()
                    );
                }
                fs::remove_file(world.path("sys/calls")).unwrap();
            }
            Started::ByAUnit | Started::ByAWrapper => {
                for verb in ["enable", "start"] {
                    let done =
                        world.with_environment(&systemctl).args(["--user", verb, UNIT]).status().unwrap();
                    assert!(done.success());
                }
                fs::remove_file(world.calls()).unwrap();
            }
            Started::Plainly => world.start_plain(None),
            Started::ByRunit => {
                let runsv = world.path("bin/runsv");
                std::os::unix::fs::symlink("/bin/sh", &runsv).unwrap();
                let script = format!("{line} & wait");
                world.start(&[runsv.display().to_string(), "-c".to_owned(), script], None);
            }
            Started::InALoop => world.start_in_a_loop(&world.line(), ""),
            Started::InALoopLater => world.start_in_a_loop(&world.line(), &world.until_again()),
            Started::UnderATitle => {
                fs::write(world.path("claw/titled"), "").unwrap();
                world.start_plain(None);
            }
            Started::AsAnother => {
                world.belongs_to_another();
                world.start_plain(Some(OTHER));
            }
        }
        world.until("the gateway's answer", || world.get("/readyz").is_some());
        world
    }

    /// Answers the command line that is in it.
    fn write_unit(&self, started: Started) -> String {
        let wrapper = self.path("bin/wrapped");
        fs::write(&wrapper, "\"$@\" &\ntrap 'kill $!; wait' TERM\nwait\n").unwrap();
        let mut line = self.line().join(" ");
        if started == Started::ByAWrapper {
            line = format!("/bin/sh {} {line}", wrapper.display());
        }
        let variables: String =
            self.variables().iter().map(|(name, value)| format!("Environment={name}={value}\n")).collect();
        fs::write(self.units().join(UNIT), format!("[Service]\n{variables}ExecStart={line}\n")).unwrap();
        line
    }

    fn empty(manner: impl FnOnce(&Self) -> Manner) -> Self {
        let directory = tempfile::Builder::new().prefix("cutover-adopt-").tempdir().unwrap();
        let port = free_address().unwrap().port();
        let mut world = Self { directory, port, manner: Manner::default() };
        world.manner = manner(&world);
        world
    }

    fn belongs_to_another(&self) {
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for path in ["claw", "claw/openclaw.json", "work", "home"] {
            std::os::unix::fs::chown(self.path(path), Some(OTHER), Some(OTHER)).unwrap();
        }
    }

    fn until_again(&self) -> String {
        format!("until [ -e {} ]; do sleep 0.05; done;", self.again().display())
    }

    fn start_in_a_loop(&self, line: &[String], pause: &str) {
        let script = format!("while :; do {}; {pause} done", line.join(" "));
        self.start(&["/bin/sh".to_owned(), "-c".to_owned(), script], None);
    }

    /// Somebody else's, by the same words but for the script, who wants its address.
    pub(crate) fn start_another_in_a_loop(&self, script: &Path) {
        let mut line = self.line();
        line[1] = script.display().to_string();
        self.start_in_a_loop(&line, "");
    }

    fn start_plain(&self, account: Option<u32>) {
        self.start(&self.line(), account);
    }

    fn start(&self, line: &[String], account: Option<u32>) {
        let mut command = Command::new(&line[0]);
        if let Some(account) = account {
            command.uid(account).gid(account);
        }
        let mut child = command
            .args(&line[1..])
            .env_clear()
            .envs(self.variables())
            .current_dir(self.path("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::spawn(move || child.wait());
    }

    /// The command line that starts it.
    pub(crate) fn line(&self) -> Vec<String> {
        let entry = self.package().join("dist/index.js").display().to_string();
        let words =
            ["gateway", "--port", &self.port.to_string(), "--bind", "loopback"].map(ToOwned::to_owned);
        let more = self.manner.words.iter().map(|word| (*word).to_owned());
        [node().display().to_string(), entry].into_iter().chain(words).chain(more).collect()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let text = |path: &str| self.path(path).display().to_string();
        let mut variables: BTreeMap<String, String> = [
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("HOME", text("home")),
            ("OPENCLAW_STATE_DIR", text("claw")),
            ("OPENCLAW_GATEWAY_TOKEN", TOKEN.to_owned()),
            ("KEPT", "by-the-operator".to_owned()),
            ("STARTS", text("starts")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in &self.manner.env {
            variables.remove(*name);
            variables.extend(value.clone().map(|value| ((*name).to_owned(), value)));
        }
        variables
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// As soon as this is there, the loop starts it again.
    pub(crate) fn again(&self) -> PathBuf {
        self.path("again")
    }

    /// How often the old one, or the copy, was started.
    #[cfg(feature = "failpoints")]
    pub(crate) fn starts(&self, of: &str) -> usize {
        let text = fs::read_to_string(self.path("starts")).unwrap();
        text.lines().filter(|line| *line == of).count()
    }

    pub(crate) fn package(&self) -> PathBuf {
        self.path("app/node_modules/openclaw")
    }

    pub(crate) fn units(&self) -> PathBuf {
        self.path("home/.config/systemd/user")
    }

    pub(crate) fn system_units(&self) -> PathBuf {
        self.path("sys/units")
    }

    /// The same of the system's manager.
    pub(crate) fn called_of_the_system(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("sys/calls")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// `cutover adopt openclaw` as the other account.
    pub(crate) fn adopt_as_another(&self, flags: &[&str]) -> Output {
        // The built one may lie where nobody else may look.
        let program = self.path("bin/cutover");
        // By another process: whatever a test beside this one starts would keep a file of ours open for writing.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_cutover")).arg(&program).status().unwrap();
        assert!(copied.success());
        let mut command = self.with_environment(&program);
        command.args(["adopt", "openclaw", "--port", &self.port.to_string()]).args(flags);
        command.env("CUTOVER_STATE", self.path("home/state")).uid(OTHER).gid(OTHER).output().unwrap()
    }

    fn calls(&self) -> PathBuf {
        self.path("home/.config/systemd/calls")
    }

    /// What was asked of the service manager that changes anything.
    pub(crate) fn called(&self) -> Vec<String> {
        let text = fs::read_to_string(self.calls()).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    pub(crate) fn unit_is_enabled(&self) -> bool {
        self.path(&format!("home/.config/systemd/{UNIT}.enabled")).exists()
    }

    /// What a take-over writes.
    pub(crate) fn written(&self) -> [PathBuf; 2] {
        [self.path("etc/conf.d/openclaw.toml"), self.path("etc/openclaw.env")]
    }

    pub(crate) fn service(&self) -> PathBuf {
        self.path("state/services/openclaw")
    }

    pub(crate) fn record(&self) -> String {
        fs::read_to_string(self.service().join("predecessor.jsonl")).unwrap_or_default()
    }

    fn with_environment(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(self.path("bin")).chain(std::env::split_paths(&path)));
        command.env("PATH", path.unwrap_or_else(|_| OsString::new())).env("HOME", self.path("home"));
        command.env("FAKE_SYSTEM_UNITS", self.system_units());
        command.env("FAKE_UNITS", self.units()).env("CUTOVER_CONFIG", self.path("etc/cutover.toml"));
        command.env("CUTOVER_STATE", self.path("state")).env_remove("CUTOVER_RUNTIME").stdin(Stdio::null());
        command
    }

    /// What a person, or a machine that comes up, has the service manager do.
    pub(crate) fn manager(&self, verb: &str) {
        let systemctl = self.path("bin/systemctl");
        assert!(self.with_environment(&systemctl).args(["--user", verb, UNIT]).status().unwrap().success());
    }

    /// A daemon as something on the machine starts it; it dies at a point if one is named.
    pub(crate) fn serve(&self, point: Option<&str>) -> Child {
        let log =
            fs::OpenOptions::new().append(true).create(true).open(self.path("state/daemon.log")).unwrap();
        let mut command = self.cutover(&["serve"]);
        command.envs(point.map(|point| ("CUTOVER_CRASH_POINT", point)));
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn cutover(&self, words: &[&str]) -> Command {
        let mut command = self.with_environment(Path::new(env!("CARGO_BIN_EXE_cutover")));
        command.args(words);
        command
    }

    /// `cutover adopt openclaw`, with quick rules where it writes some.
    fn adopting(&self, flags: &[&str]) -> Command {
        let rules = [
            "--set",
            "policy.soak = \"200ms\"",
            "--set",
            "policy.start_deadline = \"8s\"",
            "--set",
            "check_every = \"0\"",
            "--set",
            "policy.stop_grace = \"5s\"",
        ];
        let mut command = self.cutover(&["adopt", "openclaw", "--port", &self.port.to_string()]);
        command.args(rules).args(flags);
        command
    }

    /// Removes what a take-over that is over has left, so that another one may begin.
    #[cfg(feature = "failpoints")]
    pub(crate) fn forget(&self) {
        cutover_testkit::sealed::open_up(&self.path("state"));
        fs::remove_dir_all(self.path("state")).unwrap();
    }

    /// Asks a process of the gateway's to restart, as 2026.5 asks itself: it does not end at a TERM while that lies there.
    pub(crate) fn ask_to_restart(&self, pid: u32) -> PathBuf {
        let path = self.path("claw/gateway-restart-intent.json");
        fs::write(&path, format!(r#"{{"kind":"gateway-restart","pid":{pid}}}"#)).unwrap();
        path
    }

    /// Where the gateway's own installer lays its plugin.
    pub(crate) fn plugin(&self) -> PathBuf {
        self.path("claw/npm/projects/toy-extra-1/node_modules").join(PLUGIN)
    }

    /// Installs a plugin as the gateway does it: with what it needs beside it, and an absolute link to its host.
    pub(crate) fn install_plugin(&self) {
        let directory = self.plugin();
        let project = self.path("claw/npm/projects/toy-extra-1");
        let beside = project.join("node_modules/beside");
        for path in [directory.join("node_modules"), beside.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        let manifest = serde_json::json!({
            "name": PLUGIN, "version": VERSION, "dependencies": {"beside": "1.0.0"}, "peerDependencies": {"openclaw": "*"},
        });
        fs::write(directory.join("package.json"), manifest.to_string()).unwrap();
        for (name, text) in PLUGIN_FILES {
            fs::write(directory.join(name), text).unwrap();
        }
        fs::write(beside.join("package.json"), r#"{"name":"beside","version":"1.0.0"}"#).unwrap();
        fs::write(beside.join("index.js"), "").unwrap();
        fs::write(project.join("package.json"), format!(r#"{{"dependencies":{{"{PLUGIN}":"{VERSION}"}}}}"#))
            .unwrap();
        std::os::unix::fs::symlink(self.package(), directory.join("node_modules/openclaw")).unwrap();
    }

    /// Publishes another version of the plugin.
    pub(crate) fn publish_plugin(&self, registry: &Registry, version: &str) {
        registry.publish(&Package::new("beside", "1.0.0").file("index.js", ""));
        let package = Package::new(PLUGIN, version)
            .dependency("beside", "1.0.0")
            .field("peerDependencies", serde_json::json!({"openclaw": "*"}));
        let with_files = |package: Package, (name, text): (&str, &str)| package.file(name, text);
        registry.publish(&PLUGIN_FILES.into_iter().fold(package, with_files));
    }

    /// Publishes another version of the package.
    pub(crate) fn publish(&self, registry: &Registry, version: &str) {
        let package = Package::new("openclaw", version);
        registry.publish(&package.file("dist/index.js", include_str!("gateway.cjs")));
    }

    pub(crate) fn adopt(&self, flags: &[&str]) -> Output {
        self.adopting(flags).output().unwrap()
    }

    /// The same by a command that dies at a point.
    #[cfg(feature = "failpoints")]
    pub(crate) fn adopt_dying(&self, point: &str, flags: &[&str]) -> Output {
        self.adopting(flags).env("CUTOVER_CRASH_POINT", point).output().unwrap()
    }

    pub(crate) fn begin_to_adopt(&self, flags: &[&str]) -> Child {
        self.adopting(flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.cutover(words).output().unwrap()
    }

    /// What a person sees who types what was told, in a shell that knows nothing of this world but where its programs are.
    pub(crate) fn typed(&self, line: &str) -> Output {
        // Without its flags it would be about the machine's own places.
        let here = self.directory.path().display().to_string();
        assert!(!line.contains("cutover ") || (line.contains(&here) && line.contains("--state ")), "{line}");
        let program = self.path("bin/cutover");
        let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cutover"), program);
        let mut shell = self.with_environment(Path::new("/bin/sh"));
        shell.args(["-c", line]).env_remove("CUTOVER_CONFIG").env_remove("CUTOVER_STATE").output().unwrap()
    }

    /// The service as the daemon sees it.
    pub(crate) fn view(&self) -> serde_json::Value {
        let told = self.run(&["status", "openclaw", "--json"]).stdout;
        serde_json::from_slice::<serde_json::Value>(&told)
            .map_or(serde_json::Value::Null, |all| all[0].clone())
    }

    /// A page of whoever serves on the address, if somebody does.
    pub(crate) fn get(&self, path: &str) -> Option<serde_json::Value> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let body = text.split_once("\r\n\r\n")?.1;
        let json = &body[body.find('{')?..=body.rfind('}')?];
        text.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(json).unwrap())
    }

    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LIMIT, "{what} did not come about:\n{}", self.daemon_log());
            std::thread::sleep(LOOK);
        }
    }

    pub(crate) fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("state/daemon.log")).unwrap_or_default()
    }

    /// Every file with its mode and content.
    pub(crate) fn everything(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let entries = walkdir::WalkDir::new(self.directory.path()).into_iter().flatten();
        entries
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode();
                let content =
                    if entry.file_type().is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
                (entry.path().to_owned(), (mode, content))
            })
            .collect()
    }

    /// The processes that have something of this world in their command line or environment, by what `fits` says of that.
    pub(crate) fn processes(&self, fits: impl Fn(&str) -> bool) -> Vec<u32> {
        let here = self.directory.path().display().to_string();
        let own = std::process::id();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != own && alive(*pid))
            .filter(|pid| {
                let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                let env = String::from_utf8_lossy(&read("environ")).into_owned();
                (line.contains(&here) || env.contains(&here)) && fits(&line)
            })
            .collect()
    }

    /// The processes that serve as a gateway.
    pub(crate) fn gateways(&self) -> Vec<u32> {
        self.processes(|line| {
            line.contains("dist/index.js gateway") && !line.contains(" -c ") && !line.starts_with("/bin/sh ")
        })
    }

    /// Whose a process is.
    pub(crate) fn account(&self, pid: u32) -> u32 {
        fs::metadata(format!("/proc/{pid}")).unwrap().uid()
    }

    /// Kills the daemons and waits until they are gone, and with them their locks.
    pub(crate) fn kill_daemons(&self) {
        self.until("the daemons' end", || {
            let daemons = self.daemons();
            daemons.iter().copied().for_each(kill);
            daemons.is_empty()
        });
    }

    pub(crate) fn daemons(&self) -> Vec<u32> {
        self.processes(|line| line.trim_end().ends_with(" serve"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Daemons first: they start again what else is ended.
        self.daemons().into_iter().for_each(kill);
        for _ in 0..5 {
            let left = self.processes(|_| true);
            left.into_iter().for_each(kill);
        }
        cutover_testkit::sealed::open_up(&self.path("state"));
    }
}

fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join("node")).find(|node| node.is_file());
    found.expect("these tests need a node in PATH").canonicalize().unwrap()
}
