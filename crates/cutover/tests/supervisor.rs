//! Real keepers and real processes.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

use cutover::supervisor::{
    Adopted, Error, Exit, Identity, KeeperRecord, Launch, Live, LogFile, Prepared, Remains, StopBudget,
    adopt, bearing, descendants, end_remains, holding, identify, prepare, process,
};
use cutover_core::{Generation, Instance};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything here takes on a busy machine; reaching it is a failure.
const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const KEEPER: &str = env!("CARGO_BIN_EXE_cutover");

/// A place for one instance. What is left of it when the test ends is killed.
struct Place {
    root: tempfile::TempDir,
    nonce: String,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let nonce = format!("test-{}", root.path().display());
        Self { root, nonce }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("instance")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("logs/service.log")).unwrap_or_default()
    }

    /// A service that is this shell script; `$D` is the place.
    fn script(&self, text: &str) -> Launch {
        let entry = self.file("service.sh");
        std::fs::write(&entry, text).unwrap();
        std::os::unix::fs::symlink(self.root.path(), self.file("link")).unwrap();
        let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("D", self.root.path().to_str().unwrap())];
        Launch {
            program: "/bin/sh".into(),
            args: vec![entry.to_str().unwrap().into()],
            cwd: self.file("link"),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            identity: None,
            entry,
            generation: Generation(7),
            nonce: self.nonce.clone(),
            log: LogFile::at(self.file("logs/service.log")),
        }
    }

    async fn prepare(&self, launch: &Launch) -> Prepared {
        prepare(Path::new(KEEPER), &self.directory(), launch, LIMIT).await.unwrap()
    }

    async fn start(&self, script: &str) -> Live {
        self.prepare(&self.script(script)).await.go(LIMIT).await.unwrap()
    }

    async fn adopt(&self) -> Adopted {
        adopt(&self.directory(), LIMIT).await.unwrap()
    }

    /// The pid that the service wrote into a file of this name.
    fn pid(&self, name: &str) -> u32 {
        let path = self.file(name);
        let read = || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        eventually(name, || read().is_some());
        read().unwrap().trim().parse().unwrap()
    }

    fn instance(&self, name: &str) -> Instance {
        process::identify(self.pid(name)).unwrap().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let record = std::fs::read(self.directory().join("keeper.json")).unwrap_or_default();
        let keeper: Vec<Instance> =
            serde_json::from_slice(&record).map(|KeeperRecord { keeper }| keeper).into_iter().collect();
        for instance in descendants(&keeper, &self.nonce).unwrap_or_default().iter().chain(&keeper) {
            kill(instance, Signal::KILL);
        }
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_alive(instance: &Instance) -> bool {
    process::is_alive(instance).unwrap()
}

fn gone(instance: &Instance) {
    eventually(&format!("{instance} gone"), || !is_alive(instance));
}

fn kill(instance: &Instance, signal: Signal) {
    let pid = Pid::from_raw(instance.pid.cast_signed()).unwrap();
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        && process::is_alive(instance).unwrap_or(false)
    {
        // It may end in between, which is no fault of the test.
        assert!(matches!(pidfd_send_signal(pidfd, signal), Ok(()) | Err(rustix::io::Errno::SRCH)));
    }
}

fn budget(grace: Duration) -> StopBudget {
    StopBudget { grace, kill_wait: LIMIT }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn without_the_word_nothing_ever_runs() {
    let place = Place::new();
    let prepared = place.prepare(&place.script("touch $D/ran\n")).await;
    let keeper = prepared.keeper.clone();
    assert!(is_alive(&keeper));
    drop(prepared);
    gone(&keeper);
    assert_eq!(place.adopt().await, Adopted::NeverStarted);
    assert!(!place.file("ran").exists());
    assert!(!place.directory().join("instance.json").exists());
}

#[tokio::test]
async fn the_word_makes_the_process_on_record_execute_the_program() {
    let place = Place::new();
    let mut launch = place.script("echo $$ > $D/pid; env; umask; read line || echo no input; sleep 1000\n");
    launch.env.insert("NOTIFY_SOCKET".into(), "/run/daemon".into());
    launch.env.insert("LISTEN_FDS".into(), "1".into());
    launch.env.insert("COLOUR".into(), "green".into());
    let live = place.prepare(&launch).await.go(LIMIT).await.unwrap();

    assert_eq!(place.pid("pid"), live.instance().pid);
    assert_eq!(process::identify(live.instance().pid).unwrap().as_ref(), Some(live.instance()));
    assert_eq!((live.record.generation, live.record.nonce.as_str()), (Generation(7), place.nonce.as_str()));
    assert_eq!(live.record.argv, ["/bin/sh".to_owned(), launch.entry.display().to_string()]);
    assert_eq!(live.record.entry_file, identify(&launch.entry).unwrap());
    let links = live.links().unwrap().unwrap();
    assert_eq!(links.cwd, place.root.path().canonicalize().unwrap());
    assert_eq!(links.cwd, live.record.cwd);
    assert_eq!(links.exe, Path::new("/bin/sh").canonicalize().unwrap());

    eventually("its output in the log", || place.log().contains("no input"));
    let log = place.log();
    assert!(log.contains("COLOUR=green") && log.contains(&format!("CUTOVER_NONCE={}", place.nonce)), "{log}");
    assert!(!log.contains("NOTIFY_SOCKET") && !log.contains("LISTEN_FDS"), "{log}");
    assert!(!log.contains("CARGO"), "nothing is inherited: {log}");
    assert!(log.contains("0022"), "{log}");
    assert_eq!(place.adopt().await, Adopted::Running(live.clone()));
    live.stop(budget(LIMIT), &[]).await.unwrap();
    assert_eq!(live.links().unwrap(), None);
}

#[tokio::test]
async fn an_exit_code_is_on_record_and_so_is_a_signal() {
    for (script, expected) in
        [("exit 0\n", Exit::Code(0)), ("exit 78\n", Exit::Code(78)), ("kill -9 $$\n", Exit::Signal(9))]
    {
        let place = Place::new();
        let live = place.start(&format!("head -c 3000000 /dev/zero; echo last words\n{script}")).await;
        assert_eq!(live.exited(LIMIT).await.unwrap(), expected);
        let said = place.log();
        assert!(said.ends_with("last words\n"), "what was said before the end is in the log at the end");
        assert_eq!(said.len(), 3_000_011);
        let instance = live.instance().clone();
        assert_eq!(place.adopt().await, Adopted::Exited { instance, exit: expected });
        gone(live.keeper.as_ref().unwrap());
    }
}

type Breaker = fn(&mut Launch);

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told_from_one_that_failed() {
    let breakers: [(&str, Breaker); 3] = [
        ("no/such/program", |launch| launch.program = "/no/such/program".into()),
        ("/no/such/directory", |launch| launch.cwd = "/no/such/directory".into()),
        ("service.sh", |launch| launch.program.clone_from(&launch.entry)),
    ];
    for (named, break_it) in breakers {
        let place = Place::new();
        let mut launch = place.script("exit 0\n");
        break_it(&mut launch);
        match place.prepare(&launch).await.go(LIMIT).await {
            Err(Error::NotExecuted { why }) => assert!(why.contains(named), "{why}"),
            other => panic!("{named}: {other:?}"),
        }
        match place.adopt().await {
            Adopted::Exited { exit: Exit::ExecFailed { why }, .. } => assert!(why.contains(named), "{why}"),
            other => panic!("{named}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_missing_entry_file_starts_nothing() {
    let place = Place::new();
    let mut launch = place.script("touch $D/ran\n");
    launch.entry = place.file("nowhere");
    match place.prepare(&launch).await.go(LIMIT).await {
        Err(Error::NotStarted { why }) => assert!(why.contains("nowhere"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(place.adopt().await, Adopted::NeverStarted);
    assert!(!place.file("ran").exists());
}

#[tokio::test]
async fn a_directory_serves_one_start_and_paths_are_absolute() {
    let place = Place::new();
    let launch = place.script("exit 0\n");
    drop(place.prepare(&launch).await);
    let again = prepare(Path::new(KEEPER), &place.directory(), &launch, LIMIT).await;
    assert!(matches!(again, Err(Error::Used { .. })), "{again:?}");
    let relative = Launch { cwd: "here".into(), ..launch };
    let refused = prepare(Path::new(KEEPER), &place.file("other"), &relative, LIMIT).await;
    assert!(matches!(refused, Err(Error::Relative { .. })), "{refused:?}");
    assert!(!place.file("other").exists());
}

#[tokio::test]
async fn a_keeper_that_never_speaks_is_not_ready() {
    let place = Place::new();
    let launch = place.script("touch $D/ran\n");
    let silent = prepare(Path::new("/bin/true"), &place.directory(), &launch, LIMIT).await;
    assert!(matches!(silent, Err(Error::NotReady { .. })), "{silent:?}");
    assert_eq!(place.adopt().await, Adopted::NeverStarted);
}

/// What the daemon would be: a process of its own that starts a service. Killed by the tests that run it.
#[tokio::test]
#[ignore = "run as a process by other tests"]
async fn stand_in_for_the_daemon() {
    let Ok(directory) = std::env::var("STAND_IN_DIRECTORY") else { return };
    let launch: Launch = serde_json::from_str(&std::env::var("STAND_IN_LAUNCH").unwrap()).unwrap();
    let prepared = prepare(Path::new(KEEPER), Path::new(&directory), &launch, LIMIT).await.unwrap();
    println!("\nprepared {}", prepared.keeper.pid);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let live = prepared.go(LIMIT).await.unwrap();
    println!("\nlive {}", live.instance().pid);
    std::io::stdin().read_line(&mut line).unwrap();
}

struct Daemon(std::process::Child);

impl Daemon {
    fn start(place: &Place, launch: &Launch) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stand_in_for_the_daemon", "--ignored", "--nocapture"])
            .env("STAND_IN_DIRECTORY", place.directory())
            .env("STAND_IN_LAUNCH", serde_json::to_string(launch).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn hear(&mut self, word: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.starts_with(word) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it said {word}");
        }
    }

    fn say_go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// With its whole process group, as a terminal or a service manager would.
    fn kill(mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_daemon_killed_after_the_word_loses_neither_the_service_nor_its_exit_code() {
    let place = Place::new();
    let launch = place.script("while ! test -e $D/end; do sleep 0.02; done; exit 5\n");
    let mut daemon = Daemon::start(&place, &launch);
    daemon.hear("prepared");
    daemon.say_go();
    daemon.hear("live");
    daemon.kill();
    let Adopted::Running(live) = place.adopt().await else { panic!("it should run") };
    assert!(live.is_alive().unwrap() && is_alive(live.keeper.as_ref().unwrap()));
    std::fs::write(place.file("end"), "").unwrap();
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(5));
    let instance = live.instance().clone();
    assert_eq!(place.adopt().await, Adopted::Exited { instance, exit: Exit::Code(5) });
}

#[tokio::test]
async fn a_daemon_killed_before_the_word_leaves_nothing_running() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place, &place.script("touch $D/ran; sleep 1000\n"));
    daemon.hear("prepared");
    daemon.kill();
    assert_eq!(place.adopt().await, Adopted::NeverStarted);
    assert!(!place.file("ran").exists());
}

#[tokio::test]
async fn a_daemon_killed_at_any_moment_around_the_word_leaves_a_decided_start() {
    for round in 0..6_u32 {
        let place = Place::new();
        let mut daemon = Daemon::start(&place, &place.script("touch $D/ran; sleep 1000\n"));
        daemon.hear("prepared");
        daemon.say_go();
        let until = Instant::now() + Duration::from_micros(700) * round;
        while Instant::now() < until {
            std::thread::yield_now();
        }
        daemon.kill();
        match place.adopt().await {
            Adopted::NeverStarted => assert!(!place.file("ran").exists()),
            Adopted::Running(live) => {
                eventually("it runs", || place.file("ran").exists());
                live.stop(budget(LIMIT), &[]).await.unwrap();
            }
            other => panic!("round {round}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_exit_of_a_service_whose_keeper_was_killed_is_a_missing_fact() {
    let place = Place::new();
    let live = place.start("exec sleep 1000\n").await;
    let keeper = live.keeper.clone().unwrap();
    kill(&keeper, Signal::KILL);
    gone(&keeper);
    let Adopted::Running(orphan) = place.adopt().await else { panic!("it should run without its keeper") };
    assert_eq!((orphan.keeper.as_ref(), orphan.instance()), (None, live.instance()));
    kill(live.instance(), Signal::TERM);
    for of in [&orphan, &live] {
        let exit = of.exited(LIMIT).await.unwrap();
        assert!(matches!(&exit, Exit::Unknown { why } if why.contains("keeper was gone")), "{exit:?}");
    }
    assert_eq!(place.adopt().await, Adopted::Lost { instance: live.instance().clone() });
}

#[tokio::test]
async fn a_keeper_killed_at_any_moment_around_the_word_leaves_a_decided_start() {
    for round in 0..12_u32 {
        let place = Place::new();
        let prepared = place.prepare(&place.script("touch $D/ran; exec sleep 1000\n")).await;
        let keeper = prepared.keeper.clone();
        let going = tokio::spawn(prepared.go(LIMIT));
        tokio::task::yield_now().await;
        let until = Instant::now() + Duration::from_micros(500) * round;
        while Instant::now() < until {
            std::thread::yield_now();
        }
        kill(&keeper, Signal::KILL);
        gone(&keeper);
        let told = going.await.unwrap();
        match place.adopt().await {
            Adopted::NeverStarted => {
                assert!(told.is_err(), "round {round}: {told:?}");
                eventually("the shim has gone", || bearing(&place.nonce).unwrap().is_empty());
                assert!(!place.file("ran").exists());
            }
            // A shim without its byte is on record too, and goes by itself.
            Adopted::Running(live) => {
                assert_eq!(live.keeper, None);
                eventually("it runs or went", || place.file("ran").exists() || !live.is_alive().unwrap());
                live.stop(budget(LIMIT), &[]).await.unwrap();
                assert!(matches!(live.exited(LIMIT).await.unwrap(), Exit::Unknown { .. }));
            }
            Adopted::Lost { .. } => assert!(!place.file("ran").exists()),
            other @ Adopted::Exited { .. } => panic!("round {round}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_word_that_is_not_answered_in_time_is_undecided_and_never_lost() {
    let place = Place::new();
    let prepared = place.prepare(&place.script("exec sleep 1000\n")).await;
    let keeper = prepared.keeper.clone();
    kill(&keeper, Signal::STOP);
    let told = prepared.go(SHORT).await;
    assert!(matches!(told, Err(Error::Undecided { .. })), "{told:?}");
    let found = adopt(&place.directory(), SHORT).await;
    assert!(matches!(found, Err(Error::Undecided { .. })), "{found:?}");
    kill(&keeper, Signal::CONT);
    let Adopted::Running(live) = place.adopt().await else { panic!("it should run") };
    live.stop(budget(LIMIT), &[]).await.unwrap();
}

#[test]
fn a_wait_that_is_given_up_ends_its_thread() {
    // A process of its own, because the threads of other tests wait too.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stand_in_for_one_that_gives_up", "--ignored", "--nocapture"])
        .env("STAND_IN_GIVES_UP", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("gave up"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "run as a process by another test"]
async fn stand_in_for_one_that_gives_up() {
    if std::env::var_os("STAND_IN_GIVES_UP").is_none() {
        return;
    }
    let waiting = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("wait-ended")).count()
    };
    let own = process::own().unwrap();
    let wait = tokio::spawn(async move { process::ended(&own).await });
    eventually("it waits", || waiting() == 1);
    wait.abort();
    eventually("it waits no more", || waiting() == 0);
    println!("gave up");
}

#[tokio::test]
async fn an_end_that_is_not_yet_on_record_is_undecided_and_not_lost() {
    let place = Place::new();
    let live = place.start("exec sleep 1000\n").await;
    let keeper = live.keeper.clone().unwrap();
    kill(&keeper, Signal::STOP);
    kill(live.instance(), Signal::TERM);
    gone(live.instance());
    let found = adopt(&place.directory(), SHORT).await;
    assert!(matches!(found, Err(Error::Undecided { .. })), "{found:?}");
    let exit = live.exited(SHORT).await.unwrap();
    assert!(matches!(&exit, Exit::Unknown { why } if why.contains("did not write")), "{exit:?}");
    kill(&keeper, Signal::CONT);
    let instance = live.instance().clone();
    assert_eq!(place.adopt().await, Adopted::Exited { instance, exit: Exit::Signal(15) });
}

#[tokio::test]
async fn a_successor_is_found_by_its_nonce_and_its_exit_is_not_its_predecessors() {
    let place = Place::new();
    let new = format!("{}-successor", place.nonce);
    let mut launch = place.script(
        "trap 'CUTOVER_NONCE=$NEW setsid sleep 1000 & exit 0' USR1; touch $D/up; while :; do sleep 0.02; done\n",
    );
    launch.env.insert("NEW".into(), new.clone());
    let live = place.prepare(&launch).await.go(LIMIT).await.unwrap();
    eventually("it is up", || place.file("up").exists());
    live.signal_restart().unwrap();
    assert!(live.wait_gone(LIMIT).await.unwrap());
    eventually("its successor", || bearing(&new).unwrap().len() == 1);
    let successor = live.succeeded_by(bearing(&new).unwrap().remove(0), new);
    assert!(successor.is_alive().unwrap());
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(0));
    assert!(!successor.stop(budget(LIMIT), &[]).await.unwrap().forced);
    let exit = successor.exited(LIMIT).await.unwrap();
    assert!(matches!(&exit, Exit::Unknown { why } if why.contains("predecessor")), "{exit:?}");
}

#[tokio::test]
async fn a_keeper_is_deaf_to_polite_signals() {
    let place = Place::new();
    let live = place.start("while ! test -e $D/end; do sleep 0.02; done; exit 3\n").await;
    let keeper = live.keeper.as_ref().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2] {
        kill(keeper, signal);
    }
    std::fs::write(place.file("end"), "").unwrap();
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(3));
}

#[tokio::test]
async fn r25_killing_the_whole_process_group_leaves_the_keeper_to_record_it() {
    let place = Place::new();
    let live = place.start("sleep 1000 & echo $! > $D/child; wait\n").await;
    let child = place.instance("child");
    kill_process_group(Pid::from_raw(live.instance().pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Signal(9));
    gone(&child);
}

#[tokio::test]
async fn a_polite_service_is_not_forced() {
    let place = Place::new();
    let live = place.start("trap 'exit 9' TERM; touch $D/up; while :; do sleep 0.02; done\n").await;
    eventually("it is up", || place.file("up").exists());
    let stopped = live.stop(budget(LIMIT), &[]).await.unwrap();
    assert!(!stopped.forced);
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(9));
    let again = live.stop(budget(LIMIT), &[]).await.unwrap();
    assert_eq!((again.forced, again.descendants), (false, 0), "stopping again is harmless");
}

#[tokio::test]
async fn r29_a_service_that_ignores_term_is_killed_after_its_grace() {
    let place = Place::new();
    let live = place.start("trap '' TERM; touch $D/up; while :; do sleep 0.02; done\n").await;
    eventually("it is up", || place.file("up").exists());
    let stopped = live.stop(budget(SHORT), &[]).await.unwrap();
    assert!(stopped.forced && stopped.took >= SHORT, "{stopped:?}");
    assert!(!live.is_alive().unwrap());
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn a_child_in_a_session_of_its_own_is_found_by_the_nonce_and_ended() {
    let place = Place::new();
    let live = place
        .start("setsid sh -c 'trap \"\" TERM; echo $$ > $D/child; while :; do sleep 0.02; done' & exec sleep 1000\n")
        .await;
    let child = place.instance("child");
    // Without the keeper the orphan's chain of parents leads nowhere near the service.
    let keeper = live.keeper.clone().unwrap();
    kill(&keeper, Signal::KILL);
    gone(&keeper);
    kill(live.instance(), Signal::KILL);
    gone(live.instance());
    assert!(live.descendants().unwrap().contains(&child));
    let stopped =
        live.stop(StopBudget { grace: SHORT, kill_wait: Duration::from_secs(2) }, &[]).await.unwrap();
    assert!(!stopped.forced && stopped.descendants >= 1, "{stopped:?}");
    assert!(!is_alive(&child));
}

#[tokio::test]
async fn a_child_that_hides_its_nonce_is_found_through_the_keeper_that_adopted_it() {
    let place = Place::new();
    let live = place
        .start("env -i setsid /bin/sh -c \"echo \\$\\$ > $D/child; exec sleep 1000\" & exec sleep 1000\n")
        .await;
    let child = place.instance("child");
    let stopped = live.stop(budget(LIMIT), &[]).await.unwrap();
    assert!(stopped.descendants >= 1, "{stopped:?}");
    assert!(!is_alive(&child));
    gone(live.keeper.as_ref().unwrap());
}

#[tokio::test]
async fn what_is_known_otherwise_to_belong_is_ended_too_and_nobody_else() {
    let place = Place::new();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut friend = Command::new("sleep").arg("1000").spawn().unwrap();
    let [named, other] = [&friend, &stranger].map(|child| process::identify(child.id()).unwrap().unwrap());
    let live = place.start("exec sleep 1000\n").await;
    let stopped = live.stop(budget(LIMIT), std::slice::from_ref(&named)).await.unwrap();
    assert_eq!(stopped.descendants, 1);
    assert!(!is_alive(&named), "a zombie is gone, though its pid is still taken");
    assert!(is_alive(&other));
    friend.wait().unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn an_exit_is_recorded_at_once_though_descendants_live_on() {
    let place = Place::new();
    let live = place.start("sleep 1000 & echo $! > $D/child; exit 4\n").await;
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(4));
    let child = place.instance("child");
    let keeper = live.keeper.clone().unwrap();
    assert!(is_alive(&child) && is_alive(&keeper), "the keeper stays while there is somebody to reap");
    assert_eq!(live.family().unwrap(), std::slice::from_ref(&child));
    kill(&child, Signal::KILL);
    gone(&keeper);
}

/// Threads take their numbers from the same stock. The kernel refuses to watch one, and its word for that has changed.
#[tokio::test]
async fn a_thread_that_has_the_pid_now_is_not_the_process_that_had_it() {
    let (number, told) = std::sync::mpsc::channel();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        number.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
        let _ = held.recv();
    });
    let pid = told.recv().unwrap();
    // Even one that began when the process did.
    let earlier = Instance { pid, ..process::own().unwrap() };
    assert!(!process::is_alive(&earlier).unwrap());
    if let Some(now) = process::identify(pid).unwrap() {
        assert!(!process::is_alive(&now).unwrap());
    }
    assert!(process::wait_gone(&earlier, Duration::ZERO).await.unwrap());
    process::kill(&earlier).unwrap();
    drop(release);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_later_owner_of_the_pid_is_never_signalled() {
    let place = Place::new();
    let live = place.start("exec sleep 1000\n").await;
    let mut earlier = live.clone();
    earlier.record.instance.start_time -= 1;
    earlier.record.nonce = "another".into();
    earlier.keeper = None;
    assert!(!earlier.is_alive().unwrap());
    assert_eq!(earlier.links().unwrap(), None);
    assert!(earlier.wait_gone(Duration::ZERO).await.unwrap());
    let stopped = earlier.stop(budget(SHORT), &[]).await.unwrap();
    assert_eq!((stopped.forced, stopped.descendants), (false, 0));
    earlier.signal_restart().unwrap();
    let mut elsewhere = live.clone();
    elsewhere.record.instance.boot_id = cutover_core::BootId("another boot".into());
    assert!(!elsewhere.is_alive().unwrap());
    assert!(live.is_alive().unwrap(), "SIGUSR1 and TERM would have ended it");
    assert!(!live.wait_gone(Duration::ZERO).await.unwrap(), "a wait that runs out is not an end");
    live.signal_restart().unwrap();
    assert!(live.wait_gone(LIMIT).await.unwrap());
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Signal(10));
}

#[tokio::test]
async fn output_is_kept_in_so_many_files_of_such_a_size() {
    let place = Place::new();
    let mut launch = place.script("i=0; while test $i -lt 2000; do echo line $i; i=$((i+1)); done\n");
    launch.log = LogFile { size_max: 4096, files_max: 3, ..launch.log };
    let live = place.prepare(&launch).await.go(LIMIT).await.unwrap();
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(0));
    let mut names: Vec<String> = std::fs::read_dir(place.file("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["service.log", "service.log.1", "service.log.2"]);
    let mut kept = String::new();
    for name in names.iter().rev() {
        let part = std::fs::read_to_string(place.file("logs").join(name)).unwrap();
        assert!(part.len() <= 4096);
        kept.push_str(&part);
    }
    let whole: String = (0..2000).map(|number| format!("line {number}\n")).collect();
    assert!(kept.len() > 2 * 3500 && whole.ends_with(&kept), "the newest lines, whole and in order");
}

/// A service that listens. Run as a process by the test below.
#[test]
#[ignore = "run as a process by another test"]
fn stand_in_for_a_listening_service() {
    let Ok(directory) = std::env::var("D") else { return };
    let sockets: Vec<_> = ["127.0.0.1:0", "[::1]:0"].into_iter().map(std::net::TcpListener::bind).collect();
    let ports: Vec<String> =
        sockets.iter().flatten().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    std::fs::write(format!("{directory}/.addresses"), ports.join("\n")).unwrap();
    std::fs::rename(format!("{directory}/.addresses"), format!("{directory}/addresses")).unwrap();
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn listeners_of_both_families_are_the_familys_and_foreign_holders_are_named() {
    let place = Place::new();
    let mut launch = place.script("");
    launch.program = std::env::current_exe().unwrap();
    launch.args = ["--exact", "stand_in_for_a_listening_service", "--ignored"].map(str::to_owned).to_vec();
    let live = place.prepare(&launch).await.go(LIMIT).await.unwrap();
    eventually("it listens", || place.file("addresses").exists());
    let addresses = std::fs::read_to_string(place.file("addresses")).unwrap();
    let family = live.family().unwrap();
    for address in addresses.lines().map(|line| line.parse::<std::net::SocketAddr>().unwrap()) {
        let seen = holding(address.port(), &family).unwrap();
        assert!(seen.own.iter().any(|row| row.address == address && row.owners == [live.instance().clone()]));
        assert_eq!(seen.foreign.iter().filter(|holder| holder.address == address).count(), 0);
    }
    assert!(addresses.lines().count() >= 1);

    let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = holding(ours.local_addr().unwrap().port(), &family).unwrap();
    let own = process::own().unwrap();
    assert!(seen.foreign.iter().any(|holder| holder.instance.as_ref() == Some(&own)), "{seen:?}");
    live.stop(budget(LIMIT), &[]).await.unwrap();
    for address in addresses.lines().map(|line| line.parse::<std::net::SocketAddr>().unwrap()) {
        let seen = holding(address.port(), &family).unwrap();
        assert_eq!(seen.own, [], "the port is free of it");
    }
}

#[tokio::test]
async fn under_root_the_service_has_its_users_rights_and_no_others() {
    if !is_root() {
        eprintln!("skipped: only root can start a process as somebody else");
        return;
    }
    let place = Place::new();
    for path in [place.root.path().to_owned(), place.file("rights")] {
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut launch =
        place.script("grep -E '^(Uid|Gid|Groups|CapEff):' /proc/self/status; echo opened > /dev/stdout\n");
    let identity = Identity { uid: 4242, gid: 4343, groups: vec![4343, 4444], name: None, home: None };
    launch.identity = Some(identity);
    let live = place.prepare(&launch).await.go(LIMIT).await.unwrap();
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(0));
    let lines: Vec<Vec<String>> =
        place.log().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let expected: [&[&str]; 5] = [
        &["Uid:", "4242", "4242", "4242", "4242"],
        &["Gid:", "4343", "4343", "4343", "4343"],
        &["Groups:", "4343", "4444"],
        &["CapEff:", "0000000000000000"],
        &["opened"],
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn records_and_logs_are_private() {
    let place = Place::new();
    let live = place.start("echo secret\n").await;
    live.exited(LIMIT).await.unwrap();
    let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777;
    assert_eq!(mode(&place.directory()), 0o700);
    for name in
        ["spec.json", "keeper.json", "instance.json", "exit.json", "keeper.log", "../logs/service.log"]
    {
        assert_eq!(mode(&place.directory().join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_child_that_hides_its_nonce_is_ended_also_after_its_parent_has_ended_by_itself() {
    let place = Place::new();
    let live =
        place.start("env -i setsid /bin/sh -c \"echo \\$\\$ > $D/child; exec sleep 1000\" & exit 4\n").await;
    let child = place.instance("child");
    assert_eq!(live.exited(LIMIT).await.unwrap(), Exit::Code(4));
    let nonce = place.nonce.clone();
    assert!(!bearing(&nonce).unwrap().contains(&child), "its mark is hidden");
    let remains = vec![Remains { nonce, keeper: live.keeper.clone() }];
    assert_eq!(end_remains(remains, LIMIT).await.unwrap(), 1);
    assert!(!is_alive(&child));
    gone(live.keeper.as_ref().unwrap());
}
