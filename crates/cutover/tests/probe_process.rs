//! What is seen of real processes, and all of it put together.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::probe::{Before, Failed, ProcessFacts, ServiceAnswers, assemble, observe_process};
use cutover::supervisor::{Launch, Live, LogFile, StopBudget, bearing, identify, prepare, process};
use cutover_core::{Compared, Exchanges, Generation, Instance, Owner, Seen};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const BUDGET: StopBudget = StopBudget { grace: LIMIT, kill_wait: LIMIT };
const AT_MS: u64 = 7;
/// Makes this test binary a service: `itself`, or `child` for one whose child listens.
const LISTENS: &str = "CUTOVER_TEST_LISTENS";
const PORT_FILE: &str = "CUTOVER_TEST_PORT_FILE";

/// A place for instances. What is left of them when the test ends is killed by its nonce.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    fn nonce(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    async fn start(&self, name: &str, who_listens: &str, test: &str) -> Live {
        let exe = std::env::current_exe().unwrap();
        let env = [
            (LISTENS, who_listens.to_owned()),
            (PORT_FILE, self.path("port").display().to_string()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ];
        let launch = Launch {
            program: exe.clone(),
            args: ["--exact", test, "--nocapture"].map(str::to_owned).into(),
            cwd: self.path(""),
            env: env.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            identity: None,
            entry: exe,
            generation: Generation(7),
            nonce: self.nonce(name),
            log: LogFile::at(self.path(name).with_extension("log")),
        };
        let keeper = Path::new(env!("CARGO_BIN_EXE_cutover"));
        prepare(keeper, &self.path(name), &launch, LIMIT).await.unwrap().go(LIMIT).await.unwrap()
    }

    fn port(&self) -> u16 {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(self.path("port")).unwrap_or_default();
            if let Some(port) = text.strip_suffix('\n') {
                return port.parse().unwrap();
            }
            assert!(begun.elapsed() < LIMIT, "the service never listened");
            std::thread::yield_now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in ["old", "new"] {
            for instance in bearing(&self.nonce(name)).unwrap_or_default() {
                let _ = kill_process(Pid::from_raw(instance.pid.cast_signed()).unwrap(), Signal::KILL);
            }
        }
    }
}

/// Listens in this process or in a child of it, until killed, if this process was started as a service.
fn serve_if_asked(test: &str) {
    match std::env::var(LISTENS).as_deref() {
        Ok("itself") => {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let file = PathBuf::from(std::env::var_os(PORT_FILE).unwrap());
            let unfinished = file.with_extension("new");
            std::fs::write(&unfinished, format!("{}\n", socket.local_addr().unwrap().port())).unwrap();
            std::fs::rename(unfinished, file).unwrap();
            loop {
                let _ = socket.accept();
            }
        }
        Ok("child") => {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", test, "--nocapture"]).env(LISTENS, "itself");
            child.status().unwrap();
            std::process::exit(1);
        }
        _ => {}
    }
}

fn look(live: &Live, port: Option<u16>, before: Option<&Before>) -> ProcessFacts {
    observe_process(live, port, before, &|| AT_MS)
}

fn owner_of(facts: &ProcessFacts, port: u16) -> Vec<Owner> {
    let listeners = facts.listeners.value().unwrap();
    assert!(listeners.iter().all(|listener| listener.address.ends_with(&format!(":{port}"))));
    listeners.iter().map(|listener| listener.owner.clone()).collect()
}

#[tokio::test]
async fn a_process_is_seen_with_its_identity_code_and_port_until_it_ends() {
    const NAME: &str = "a_process_is_seen_with_its_identity_code_and_port_until_it_ends";
    serve_if_asked(NAME);
    let place = Place::new();
    let live = place.start("new", "itself", NAME).await;
    let port = place.port();
    let facts = look(&live, Some(port), None);
    assert_eq!(facts.identity.value(), Some(live.instance()));
    let code = facts.code.value().unwrap();
    let exe = std::env::current_exe().unwrap().canonicalize().unwrap();
    let entry = identify(&exe).unwrap();
    assert_eq!(code.generation, Generation(7));
    assert_eq!((code.entry.inode, &code.entry.sha256), (entry.inode, &entry.sha256));
    assert_eq!(Path::new(&code.exe), exe);
    assert_eq!(Path::new(&code.cwd), place.root.path().canonicalize().unwrap());
    assert_eq!(owner_of(&facts, port), [Owner::Instance]);
    assert!(matches!(&facts.old, Seen::NotApplicable { why } if why == "no process ran before it"));
    assert!(matches!(look(&live, None, None).listeners, Seen::NotApplicable { .. }));

    live.stop(BUDGET, &[]).await.unwrap();
    let facts = look(&live, Some(port), None);
    let expected = format!("{} has ended", live.instance());
    for why in [missing(&facts.identity), missing(&facts.code)] {
        assert_eq!(why, expected);
    }
    assert_eq!(owner_of(&facts, port), []);
}

fn missing<T>(seen: &Seen<T>) -> &str {
    match seen {
        Seen::Missing { why, at_ms: AT_MS, .. } => why,
        _ => panic!("not missing"),
    }
}

#[tokio::test]
async fn a_child_that_listens_is_the_instances_own() {
    const NAME: &str = "a_child_that_listens_is_the_instances_own";
    serve_if_asked(NAME);
    let place = Place::new();
    let live = place.start("new", "child", NAME).await;
    let port = place.port();
    let owners = owner_of(&look(&live, Some(port), None), port);
    let [Owner::Descendant { pid }] = owners[..] else { panic!("{owners:?}") };
    assert_ne!(pid, live.instance().pid);
    assert!(live.descendants().unwrap().iter().any(|found| found.pid == pid));
    live.stop(BUDGET, &[]).await.unwrap();
}

#[tokio::test]
async fn r07_a_foreign_listener_is_named_and_left_alone() {
    const NAME: &str = "r07_a_foreign_listener_is_named_and_left_alone";
    serve_if_asked(NAME);
    let place = Place::new();
    let live = place.start("new", "itself", NAME).await;
    place.port();
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = ours.local_addr().unwrap().port();
    let owners = owner_of(&look(&live, Some(port), None), port);
    let [Owner::Foreign { pid: Some(pid), command: Some(command) }] = &owners[..] else {
        panic!("{owners:?}")
    };
    assert_eq!(*pid, std::process::id());
    assert!(std::env::current_exe().unwrap().to_string_lossy().contains(command.as_str()), "{command}");
    live.stop(BUDGET, &[]).await.unwrap();
}

#[tokio::test]
async fn what_is_left_of_the_process_before_is_seen_until_all_of_it_is_gone() {
    const NAME: &str = "what_is_left_of_the_process_before_is_seen_until_all_of_it_is_gone";
    serve_if_asked(NAME);
    let place = Place::new();
    let old = place.start("old", "child", NAME).await;
    place.port();
    std::fs::remove_file(place.path("port")).unwrap();
    let new = place.start("new", "itself", NAME).await;
    place.port();
    let before = Before::from(&old);
    let left = |facts: &ProcessFacts| facts.old.value().unwrap().alive.clone();
    let child = old.descendants().unwrap()[0].clone();
    assert_eq!(left(&look(&new, None, Some(&before))), [old.instance().pid, child.pid]);
    // The process itself ends, and what it started is an orphan.
    kill_process(Pid::from_raw(old.instance().pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert!(old.wait_gone(LIMIT).await.unwrap());
    assert_eq!(left(&look(&new, None, Some(&before))), [child.pid]);
    kill_process(Pid::from_raw(child.pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert!(process::wait_gone(&child, LIMIT).await.unwrap());
    assert_eq!(left(&look(&new, None, Some(&before))), [0; 0]);
    new.stop(BUDGET, &[]).await.unwrap();
}

fn yes<T>(value: T) -> Seen<T> {
    Seen::Yes { value, at_ms: AT_MS, source: "there".to_owned() }
}

fn no_answer<T>() -> Seen<T> {
    Seen::Missing { why: "no answer".to_owned(), at_ms: AT_MS, source: "there".to_owned() }
}

fn answers() -> ServiceAnswers {
    ServiceAnswers {
        version: yes("2".to_owned()),
        build: yes("b".to_owned()),
        service_instance: yes("i".to_owned()),
        live: yes(true),
        ready: yes(true),
        plugins: Seen::NotApplicable { why: "none".to_owned() },
        user_path: yes(true),
        failed: Failed::default(),
    }
}

fn facts() -> ProcessFacts {
    ProcessFacts { identity: no_answer(), code: no_answer(), listeners: no_answer(), old: no_answer() }
}

fn put_together(elsewhere: ServiceAnswers) -> cutover_core::Observations {
    let traffic = Compared { before: Exchanges::default(), now: Exchanges::default() };
    assemble(facts(), answers(), vec![elsewhere], yes(Vec::new()), yes(traffic), 3)
}

#[test]
fn answers_from_two_places_that_agree_are_one_fact_with_both_sources() {
    let seen = put_together(answers());
    assert_eq!(seen.version, Seen::Yes { value: "2".into(), at_ms: AT_MS, source: "there; there".into() });
    assert_eq!((seen.live.value(), seen.ready.value()), (Some(&true), Some(&true)));
    assert!(matches!(seen.plugins, Seen::NotApplicable { .. }));
    assert_eq!(seen.streak, 3);
}

#[test]
fn what_is_missing_or_different_through_the_front_is_no_fact() {
    let other = ServiceAnswers {
        version: yes("1".to_owned()),
        build: no_answer(),
        service_instance: yes("j".to_owned()),
        live: yes(false),
        ready: no_answer(),
        plugins: yes(vec!["p@1".to_owned()]),
        user_path: yes(false),
        failed: Failed::default(),
    };
    let seen = put_together(other);
    assert_eq!(missing(&seen.version), "two answers: \"2\" and \"1\"");
    assert_eq!(missing(&seen.build), "no answer");
    assert_eq!(missing(&seen.service_instance), "two answers: \"i\" and \"j\"");
    assert_eq!(missing(&seen.ready), "no answer");
    assert_eq!((seen.live.value(), seen.user_path.value()), (Some(&false), Some(&false)));
    assert_eq!(seen.plugins.value().unwrap(), &["p@1"]);
    assert_eq!(missing(&seen.identity), "no answer");
}

#[test]
fn without_a_second_place_the_direct_answers_stand() {
    let seen = assemble(facts(), answers(), Vec::new(), no_answer(), no_answer(), 1);
    assert_eq!(seen.version, yes("2".to_owned()));
    assert_eq!(missing(&seen.tripwires), "no answer");
    assert_eq!(missing(&seen.traffic), "no answer");
}

#[tokio::test]
async fn a_pid_that_belongs_to_somebody_else_now_is_reported_as_it_is() {
    const NAME: &str = "a_pid_that_belongs_to_somebody_else_now_is_reported_as_it_is";
    serve_if_asked(NAME);
    let place = Place::new();
    let live = place.start("new", "itself", NAME).await;
    let mut earlier = live.clone();
    earlier.record.instance =
        Instance { start_time: live.instance().start_time - 1, ..live.instance().clone() };
    let facts = look(&earlier, None, None);
    assert_eq!(facts.identity.value(), Some(live.instance()));
    assert!(missing(&facts.code).contains("has ended"));
    live.stop(BUDGET, &[]).await.unwrap();
}
