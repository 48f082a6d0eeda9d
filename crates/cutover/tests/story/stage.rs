//! What every story needs: the real program on a world of its own, quick rules, a client that looks closely.

use anyhow::Context;
use cutover::conductor::View;
use cutover::demo::{Plan, Reach, SERVICE, World};
use cutover_core::{Report, Resolution, Status};
use cutover_testkit::load::{Entry, Load, LoadPlan, SocketPlan};
use sample_gateway::Knobs;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Rules under which a story is quick.
const POLICY: [(&str, &str); 8] = [
    // What goes wrong shall go wrong after the cut, unless a story is about what comes before it.
    ("rehearse", "\"never\""),
    ("soak", "\"150ms\""),
    ("probe_interval", "\"25ms\""),
    ("streak", "3"),
    ("stop_grace", "\"2s\""),
    ("drain", "\"2s\""),
    ("start_deadline", "\"4s\""),
    ("hold", "\"10s\""),
];
/// How long anything is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Further lines of the service, and the quick rules with some of them changed.
pub(crate) fn with_policy(service: &str, changed: &[(&str, &str)]) -> String {
    let mut rules: BTreeMap<&str, &str> = POLICY.into();
    rules.extend(changed.iter().copied());
    let rules: Vec<String> = rules.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{service}\npolicy = {{ {} }}", rules.join(", "))
}

/// The program under test. Releases are copies of it, so debugging information is left out where that is possible.
pub(crate) fn executable() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let strip = || {
        let whole = PathBuf::from(env!("CARGO_BIN_EXE_cutover"));
        let built = std::fs::metadata(&whole).and_then(|metadata| metadata.modified()).ok()?;
        let mark = built.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
        let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cutover-{mark}"));
        if !stripped.exists() {
            forget_older();
            let new = stripped.with_extension(std::process::id().to_string());
            let done = Command::new("strip").arg("-o").arg(&new).arg(&whole).status().ok()?;
            done.success().then_some(())?;
            std::fs::rename(new, &stripped).ok()?;
        }
        Some(stripped)
    };
    PROGRAM.get_or_init(|| strip().unwrap_or_else(|| env!("CARGO_BIN_EXE_cutover").into())).clone()
}

/// Removes what builds of an hour ago and more left; nobody plays with those any more.
fn forget_older() {
    for entry in std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten() {
        let age =
            entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        let is_old = age.is_some_and(|age| age > Duration::from_secs(3600));
        if is_old && entry.file_name().to_string_lossy().starts_with("cutover-") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A world in which 1.0.0 is installed and serves; the other releases are published.
pub(crate) async fn world(service: &str, releases: &[(&str, Knobs)]) -> anyhow::Result<World> {
    let mut world = unserved(Plan { service: service.to_owned(), ..Plan::new(executable()) }, releases)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

/// The same without a front.
pub(crate) async fn direct(service: &str, releases: &[(&str, Knobs)]) -> anyhow::Result<World> {
    let plan = Plan { service: service.to_owned(), reach: Reach::Direct, ..Plan::new(executable()) };
    let mut world = unserved(plan, releases)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    Ok(world)
}

/// A world with releases and no daemon yet.
pub(crate) fn unserved(plan: Plan, releases: &[(&str, Knobs)]) -> anyhow::Result<World> {
    let world = World::of(plan)?;
    // Declared state lies in a directory that is there: what has no place cannot be put back.
    std::fs::create_dir(world.path().join("data"))?;
    for (version, knobs) in releases {
        world.publish(version, knobs.clone())?;
    }
    Ok(world)
}

/// A command that reports as JSON: the report and the exit code.
pub(crate) async fn reported(world: &World, words: &[&str]) -> anyhow::Result<(Report, i32)> {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let output = world.cutover(&words).await?;
    let code = output.status.code().context("the command was killed")?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{words:?} printed no report (exit {code}): {}", told(&output)))?;
    Ok((report, code))
}

/// What a command printed, both ways.
pub(crate) fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `update --to`.
pub(crate) async fn update(world: &World, version: &str) -> anyhow::Result<(Report, i32)> {
    reported(world, &["update", SERVICE, "--to", version]).await
}

/// The view once a proven process serves.
pub(crate) async fn serving(world: &World, version: &str) -> anyhow::Result<View> {
    world
        .until(&format!("{version} serving"), |view| {
            view.report.serving.version.as_deref() == Some(version)
                && view.process.is_some()
                && view.process == view.report.serving.instance
                && view.report.serving.posture == "serve"
        })
        .await
}

/// The present view.
pub(crate) async fn view(world: &World) -> anyhow::Result<View> {
    world.until("an answer", |_| true).await
}

/// Asserts the word, the resolution and the exit code, with the whole report if they are others.
#[track_caller]
pub(crate) fn assert_told(told: &(Report, i32), status: Status, resolution: Resolution, code: i32) {
    let (report, exit) = told;
    assert_eq!((report.status, report.resolution, *exit), (Some(status), resolution, code), "{report:#?}");
    assert_eq!(report.ok, status == Status::RestartVerified, "ok is derived from the status");
}

/// An answer as a client got it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request on a connection of its own.
pub(crate) async fn get(world: &World, path: &str) -> anyhow::Result<Answer> {
    ask(world, "GET", path, "", "").await
}

/// One request of a browser.
pub(crate) async fn get_page(world: &World, path: &str) -> anyhow::Result<Answer> {
    ask(world, "GET", path, "accept: text/html,*/*;q=0.8\r\n", "").await
}

/// One request of somebody who is not on this machine: it came through another proxy.
pub(crate) async fn get_from_afar(world: &World, path: &str) -> anyhow::Result<Answer> {
    ask(world, "GET", path, "x-forwarded-for: 203.0.113.7\r\n", "").await
}

/// One request with a body.
pub(crate) async fn post(world: &World, path: &str, body: &str) -> anyhow::Result<Answer> {
    ask(world, "POST", path, "", body).await
}

async fn ask(world: &World, method: &str, path: &str, fields: &str, body: &str) -> anyhow::Result<Answer> {
    let conversation = async {
        let mut stream = TcpStream::connect(world.address).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n{body}",
            world.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = tokio::time::timeout(LIMIT, conversation).await.context("no answer")??;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
    Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// Traffic of every kind on the service, until it is stopped.
pub(crate) fn load(world: &World, rate: u32) -> anyhow::Result<Load> {
    let plan = LoadPlan {
        rate,
        mix: vec![
            Entry::Get { path: "/".into() },
            Entry::Get { path: "/chunk/{n}".into() },
            Entry::Echo { path: "/echo?ms=20".into(), bytes: 2000 },
            Entry::Stream { path: "/slow?ms=60&pieces=3&size=100".into(), bytes: 300 },
        ],
        sockets: Some(SocketPlan::pings(3, "/ws")),
        ..LoadPlan::new(world.address)
    };
    Ok(Load::start(plan)?)
}

/// Waits until `holds`, and fails with `what` otherwise.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await {
        anyhow::ensure!(begun.elapsed() < LIMIT, "{what} does not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A stranger on the address of a process that has just ended: the kernel closes its sockets a moment after it is gone.
pub(crate) async fn seized(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < LIMIT => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            bound => return bound.with_context(|| format!("binding {address}")),
        }
    }
}

/// Rewrites the world's configuration.
pub(crate) fn configure(world: &World, from: &str, to: &str) -> anyhow::Result<()> {
    let config = std::fs::read_to_string(world.config())?;
    anyhow::ensure!(config.contains(from), "{from} is not in the configuration");
    std::fs::write(world.config(), config.replace(from, to))?;
    Ok(())
}

/// Replaces lines of the configuration by what they begin with.
pub(crate) fn rewrite(world: &World, changed: &[(&str, String)]) {
    let config = std::fs::read_to_string(world.config()).unwrap();
    let changed = |line: &str| {
        let new = changed.iter().find(|(begin, _)| line.starts_with(begin));
        new.map_or_else(|| line.to_owned(), |(_, new)| new.clone())
    };
    let lines: Vec<String> = config.lines().map(changed).collect();
    std::fs::write(world.config(), lines.join("\n") + "\n").unwrap();
}

/// The machine's node, itself and no link: what runs must be what was named.
pub(crate) fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join("node")).find(|node| node.is_file());
    found.expect("these tests need a node in PATH").canonicalize().unwrap()
}

/// Changes one file of a generation, as a foreign hand would, and names it.
pub(crate) fn change_a_file(world: &World, generation: u32) -> anyhow::Result<PathBuf> {
    let chunks = std::fs::read_dir(world.generation(generation).join("core/chunks"))?;
    let chunk = chunks.flatten().next().context("there are chunks")?.path();
    std::fs::set_permissions(&chunk, std::fs::Permissions::from_mode(0o644))?;
    std::fs::write(&chunk, "a foreign hand")?;
    Ok(chunk)
}

/// Sends a signal to a process that this world started.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("no pid")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Whether a pid is somebody's, zombies not counted.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The pids of this world's processes that do `part` (`front`, `keeper`, `sample-gateway`), alive.
pub(crate) fn processes(world: &World, part: &str) -> Vec<u32> {
    let here = world.path().to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<u32> = pids
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            words.get(1).is_some_and(|word| word == part)
                && words.iter().any(|word| word.starts_with(&here))
                && is_alive(*pid)
        })
        .collect();
    found.sort_unstable();
    found
}

/// Everything that all instances of the service printed, oldest first.
pub(crate) fn service_log(world: &World) -> String {
    logs(world).iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
}

/// How often a version of the service was started.
pub(crate) fn starts_of(world: &World, version: &str) -> usize {
    starts_in(&service_log(world), version)
}

/// How often a version was started by instances younger than the log `mark`; old logs are swept away.
pub(crate) fn starts_since(world: &World, mark: Option<&PathBuf>, version: &str) -> usize {
    let younger = logs(world).into_iter().filter(|path| Some(path) > mark);
    younger.map(|path| starts_in(&std::fs::read_to_string(path).unwrap_or_default(), version)).sum()
}

/// The logs of all instances, oldest first.
pub(crate) fn logs(world: &World) -> Vec<PathBuf> {
    let logs = world.state().join("services").join(SERVICE).join("logs");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(logs).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn starts_in(log: &str, version: &str) -> usize {
    log.matches(&format!("starting {version} (")).count()
}
