//! The sample gateway as a real process: each promise that other rooms' tests build on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use running::{Area, LIMIT, Running, ask, until};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

#[test]
fn a_good_service_answers_every_route_and_stops_cleanly() {
    let area = Area::with(Knobs::default());
    let mut gateway = area.start();
    for path in ["/healthz", "/readyz", "/startupz", "/", "/chunk/0", "/chunk/1000"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    let page = gateway.get("/");
    assert!(page.body.contains("1.0.0") && page.head.contains("default-src 'none'"), "{page:?}");
    for asset in &area.manifest.assets {
        assert!(page.body.contains(asset));
        assert_eq!(gateway.get(&format!("/assets/{asset}")).status, 200);
    }
    assert_eq!(gateway.get("/assets/..%2f..%2frelease.json").status, 404);
    assert_eq!(gateway.get("/state").status, 404);

    let identity = gateway.json("/version");
    assert_eq!((&identity["version"], &identity["build"]), (&"1.0.0".into(), &"build-1.0.0".into()));
    assert_eq!(identity["pid"], gateway.pid());
    assert_eq!(identity["bootId"], gateway.json("/version")["bootId"]);

    let echo = gateway.post("/echo", "hello");
    assert!(echo.body == "hello" && echo.head.contains("x-body-length: 5"), "{echo:?}");
    assert!(echo.head.contains("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"));
    let slow = gateway.get("/slow?ms=20&pieces=4&size=3");
    assert!(slow.head.contains("x-body-length: 12"));
    assert_eq!(slow.body.matches("...").count(), 4, "{slow:?}");

    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn readiness_and_liveness_follow_their_knobs() {
    let area = Area::with(Knobs { ready_delay_ms: 600, ..Knobs::default() });
    let booting = area.start();
    assert_eq!((booting.get("/healthz").status, booting.get("/startupz").status), (200, 503));
    booting.wait_for_status("/readyz", 200);
    assert_eq!(booting.get("/startupz").status, 200);

    let never =
        Area::with(Knobs { never_ready: true, never_live: true, no_version: true, ..Knobs::default() });
    let never = never.start();
    for (path, status) in [("/healthz", 503), ("/readyz", 503), ("/startupz", 503), ("/version", 404)] {
        assert_eq!(never.get(path).status, status, "{path}");
    }

    let area = Area::with(Knobs { ready_then_unready_after_ms: Some(500), ..Knobs::default() });
    let lost = area.start();
    lost.wait_for_status("/readyz", 503);
    assert_eq!(lost.get("/startupz").status, 200);
}

#[test]
fn a_liar_lies_on_every_channel() {
    let knobs = Knobs {
        report_version: Some("9.9.9".into()),
        report_build: Some("other".into()),
        wrong_boot_id_each_request: true,
        ..Knobs::default()
    };
    let area = Area::with(knobs);
    let liar = area.start();
    let (one, two) = (liar.json("/version"), liar.json("/version"));
    assert_eq!((&one["version"], &one["build"]), (&"9.9.9".into(), &"other".into()));
    assert_ne!(one["bootId"], two["bootId"]);
}

#[test]
fn a_crash_ends_with_its_code() {
    let at_boot = Area::with(Knobs { crash_at_boot: Some(78), ..Knobs::default() });
    let mut at_boot = Running::spawn(at_boot.command().args(["--port", "0"]));
    assert_eq!(at_boot.exit_code(), Some(78));
    assert!(!at_boot.has_line("listening"));

    let later = Area::with(Knobs { crash_after_ms: Some(50), exit_code: Some(3), ..Knobs::default() });
    assert_eq!(later.start().exit_code(), Some(3));

    let area = Area::with(Knobs::default());
    let mut bad_knobs =
        Running::spawn(area.command().args(["--port", "0"]).env("SAMPLE_KNOBS", "{\"no\":1}"));
    assert_eq!(bad_knobs.exit_code(), Some(2));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut refused = Running::spawn(area.command().args(["--port", &port]));
    assert_eq!(refused.exit_code(), Some(1));
    refused.line("Address already in use");
}

#[test]
fn a_term_during_boot_ends_it_and_one_that_is_ignored_does_not() {
    let area = Area::with(Knobs { boot_delay_ms: 60_000, ..Knobs::default() });
    let mut booting = Running::spawn(area.command().args(["--port", "0"]));
    until("SIGTERM has a handler", || signal_is_caught(booting.pid(), 15));
    booting.signal(Signal::TERM);
    assert_eq!(booting.exit_code(), Some(0));

    let area = Area::with(Knobs { ignore_term: true, ..Knobs::default() });
    let mut stubborn = area.start();
    stubborn.signal(Signal::TERM);
    stubborn.line("SIGTERM ignored");
    assert_eq!(stubborn.get("/readyz").status, 200);
    stubborn.signal(Signal::KILL);
    assert_eq!(stubborn.exit_code(), None);
}

/// Whether the process has a handler for the signal, by the kernel's own account.
fn signal_is_caught(pid: u32, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() & (1 << (signal - 1)) != 0
}

#[test]
fn a_replaced_tree_breaks_the_running_process_as_it_broke_the_incident() {
    let area = Area::with(Knobs { lazy_open_every_ms: Some(5), ..Knobs::default() });
    let mut gateway = area.start();
    fs::remove_dir_all(area.root().join("chunks")).unwrap();
    let answer = gateway.get("/chunk/7");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains(&format!("Cannot find module {}", area.manifest.chunks[7])), "{answer:?}");
    let line = gateway.line("ERR_MODULE_NOT_FOUND");
    assert!(line.starts_with(&format!(
        "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '{}/",
        area.root().display()
    )));
    until("the background misses a chunk too", || {
        gateway.json("/version")["modulesMissing"].as_u64() > Some(1)
    });
    // Health is no proof.
    assert_eq!((gateway.get("/healthz").status, gateway.get("/readyz").status), (200, 200));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), Some(1), "the shutdown path is lazy too");
    gateway.line("Error: stop: Cannot find module chunk-");
}

#[test]
fn a_chunk_of_other_content_is_recognised() {
    let area = Area::with(Knobs::default());
    let gateway = area.start();
    fs::write(area.root().join("chunks").join(&area.manifest.chunks[3]), "half").unwrap();
    assert_eq!(gateway.get("/chunk/3").status, 500);
    assert_eq!(gateway.get("/chunk/4").status, 200);
}

#[test]
fn a_tripwire_line_names_the_own_tree() {
    let area = Area::with(Knobs { log_tripwire_after_ms: Some(1), ..Knobs::default() });
    let line = area.start().line("ERR_MODULE_NOT_FOUND");
    let start = format!("Error [ERR_MODULE_NOT_FOUND]: Cannot find module '{}/", area.root().display());
    assert!(line.starts_with(&start), "{line}");
}

#[test]
fn a_stop_lets_an_exchange_finish_within_the_drain_limit_and_cuts_it_after() {
    let area = Area::with(Knobs::default());
    let mut patient = area.start();
    let stream = begin(patient.address, "/slow?ms=1000&pieces=10&size=10");
    patient.signal(Signal::TERM);
    assert_eq!(rest(stream).matches("..........").count(), 10);
    assert_eq!(patient.exit_code(), Some(0));

    let mut hasty = area.start_with(|command| command.env("SAMPLE_KNOBS", r#"{"drain_limit_ms":50}"#));
    let stream = begin(hasty.address, "/slow?ms=60000&pieces=10&size=10");
    hasty.signal(Signal::TERM);
    hasty.line("drain limit reached");
    assert_eq!(hasty.exit_code(), Some(0));
    assert!(!rest(stream).contains("0\r\n\r\n"), "a cut body has no end");
}

/// Sends a request and waits for the head of its answer.
fn begin(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_slow_stop_no_longer_accepts() {
    let area = Area::with(Knobs { slow_stop_ms: 700, ..Knobs::default() });
    let mut gateway = area.start();
    gateway.signal(Signal::TERM);
    gateway.line("stopping");
    until("the port is closed", || TcpStream::connect(gateway.address).is_err());
    assert!(gateway.is_alive());
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn an_orphan_holds_the_port_for_its_time_in_a_session_of_its_own() {
    let area = Area::with(Knobs { orphan_on_port_ms: Some(3000), ..Knobs::default() });
    let mut gateway = area.start();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), Some(0));
    let orphan = descendant_of(&gateway);
    until("it is a session of its own", || field(orphan, 6) == Some(orphan.to_string()));
    assert!(TcpListener::bind(gateway.address).is_err(), "the orphan holds it");
    until("it ends by itself", || TcpListener::bind(gateway.address).is_ok());
}

fn descendant_of(gateway: &Running) -> u32 {
    gateway.line("left descendant").split(' ').nth(4).unwrap().parse().unwrap()
}

/// A field of `/proc/PID/stat` by proc(5)'s number: 3 is the state, 6 the session. `None` once the process is gone.
fn field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number - 3).map(str::to_owned)
}

#[test]
fn a_descendant_outlives_its_parent_without_the_port() {
    let area = Area::with(Knobs { spawn_child_ms: Some(60_000), ..Knobs::default() });
    let mut gateway = area.start();
    let descendant = descendant_of(&gateway);
    until("it is a session of its own", || field(descendant, 6) == Some(descendant.to_string()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(TcpListener::bind(gateway.address).is_ok());
    assert!(field(descendant, 3).is_some_and(|state| state == "S" || state == "R"), "it lives on");
    let pid = rustix::process::Pid::from_raw(descendant.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    until("it is gone", || field(descendant, 3).is_none_or(|state| state == "Z"));
}

#[test]
fn state_survives_migrates_and_is_refused_by_an_older_version() {
    let area = Area::with(Knobs::default());
    let state = area.path("state");
    let mut first = area.start_with(|command| command.arg("--state").arg(&state));
    for text in ["one", "two"] {
        assert_eq!(first.post("/state", text).status, 200);
    }
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));

    let newer = |command: &mut std::process::Command| {
        command.env("SAMPLE_STATE", &state).env("SAMPLE_KNOBS", r#"{"migrate_to":2}"#);
    };
    let mut second = area.start_with(|command| {
        newer(command);
        command
    });
    let summary = second.json("/state");
    assert_eq!((&summary["schema"], &summary["rows"]), (&2.into(), &2.into()));
    second.signal(Signal::TERM);
    assert_eq!(second.exit_code(), Some(0));

    let mut older = Running::spawn(area.command().args(["--port", "0"]).env("SAMPLE_STATE", &state));
    assert_eq!(older.exit_code(), Some(78));
    older.line("state has schema 2, this version knows up to 1");
}

#[test]
fn a_configuration_key_of_another_version_is_refused_before_anything_starts() {
    let area = Area::with(Knobs { reject_config_key: Some("old_key".into()), ..Knobs::default() });
    let config = area.path("config.json");
    for (text, code) in [(r#"{"old_key":1}"#, 78), (r#"{"other":1}"#, 0), ("{", 78)] {
        fs::write(&config, text).unwrap();
        let mut check = Running::spawn(area.command().arg("check").arg("--config").arg(&config));
        assert_eq!(check.exit_code(), Some(code), "{text}");
    }
    fs::write(&config, r#"{"old_key":1}"#).unwrap();
    let mut start = Running::spawn(area.command().args(["--port", "0"]).env("SAMPLE_CONFIG", &config));
    assert_eq!(start.exit_code(), Some(78));
    start.line("unrecognized key in configuration: old_key");
}

#[test]
fn both_families_are_bound_when_asked() {
    let area = Area::with(Knobs { bind_ipv6: true, ..Knobs::default() });
    let gateway = area.start();
    gateway.line("listening on [::1]:");
    let other = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, gateway.address.port()));
    assert_eq!(ask(other, "GET /healthz", "").status, 200);
}

#[test]
fn events_tick_and_end_with_a_farewell() {
    let area = Area::with(Knobs::default());
    let mut gateway = area.start();
    let mut stream = begin(gateway.address, "/events");
    let mut piece = [0; 512];
    let length = stream.read(&mut piece).unwrap();
    assert!(String::from_utf8_lossy(&piece[..length]).contains("event: tick"));
    gateway.signal(Signal::TERM);
    let last = rest(stream);
    assert!(last.contains("event: shutdown") && last.ends_with("0\r\n\r\n"), "{last}");
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn signals_without_meaning_are_recorded_and_harmless() {
    let area = Area::with(Knobs::default());
    let gateway = area.start();
    gateway.signal(Signal::USR2);
    gateway.signal(Signal::HUP);
    gateway.line("SIGUSR2 recorded");
    gateway.line("SIGHUP recorded");
    let signals = gateway.json("/version")["signals"].clone();
    assert_eq!(signals, serde_json::json!({"usr1": 0, "usr2": 1, "hup": 1}));
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_held_boot_listens_only_after_it() {
    let area = Area::with(Knobs { boot_delay_ms: 300, ..Knobs::default() });
    let began = std::time::Instant::now();
    let gateway = area.start();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(gateway.get("/readyz").status, 200);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("go");
    let area = Area::with(Knobs { boot_after: Some(file.clone()), ..Knobs::default() });
    let mut waiting = Running::spawn(area.command().args(["--port", "0"]));
    until("SIGTERM has a handler", || signal_is_caught(waiting.pid(), 15));
    let other = Running::spawn(area.command().args(["--port", "0"]));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.has_line("listening on ") && !other.has_line("listening on "));
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.exit_code(), Some(0));
    fs::write(file, "").unwrap();
    other.line("listening on ");
}
