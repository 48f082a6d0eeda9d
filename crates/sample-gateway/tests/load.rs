//! A real gateway under load: nothing fails while it is left alone, and what a bare restart costs is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use cutover_testkit::load::{Entry, Handshake, Load, LoadPlan, Log, Report, SocketExchange, SocketPlan};
use running::{Area, LIMIT, Running};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::net::SocketAddr;
use std::time::Duration;

fn plan(target: SocketAddr) -> LoadPlan {
    let handshake = Handshake::OpenClaw { token: "secret".into() };
    LoadPlan {
        mix: vec![
            Entry::Get { path: "/".into() },
            Entry::Get { path: "/chunk/{n}".into() },
            Entry::Echo { path: "/echo?ms=20".into(), bytes: 20_000 },
            Entry::Stream { path: "/slow?ms=50&pieces=5&size=100".into(), bytes: 500 },
            Entry::Rpc {
                path: "/".into(),
                handshake: handshake.clone(),
                method: "status".into(),
                params: serde_json::json!({}),
            },
        ],
        sockets: Some(SocketPlan {
            handshake,
            exchange: SocketExchange::Echo,
            every: Duration::from_millis(20),
            ..SocketPlan::pings(5, "/ws")
        }),
        ..LoadPlan::new(target)
    }
}

async fn until(what: &str, log: &Log, holds: impl Fn(&Report) -> bool) {
    let waiting = async {
        while !holds(&log.report()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(LIMIT, waiting).await.is_ok(),
        "not within {LIMIT:?}: {what}: {}",
        log.report()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_left_alone_fails_nothing_and_a_bare_restart_is_seen() {
    let area = Area::with(Knobs { boot_delay_ms: 300, ..Knobs::default() });
    let mut first = area.start_with(|command| command.env("SAMPLE_TOKEN", "secret"));
    let load = Load::start(plan(first.address)).unwrap();
    let log = load.log();
    until("it runs", &log, |report| report.sent >= 100 && report.sockets.answered >= 100).await;
    let alone = log.report();
    assert_eq!((alone.failed, alone.sockets.failed, alone.sockets.refused), (0, 0, 0), "{alone}");

    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));
    let port = first.address.port().to_string();
    let second = Running::spawn(area.command().args(["--port", &port]).env("SAMPLE_TOKEN", "secret"));
    second.line("listening on ");
    until("all WebSockets are back", &log, |report| report.sockets.opened == 10).await;
    let report = load.stop().await.unwrap();
    assert!(report.failed > 0 && report.sockets.refused > 0, "{report}");
    assert_eq!((report.sockets.closed_restart, report.sockets.closed_abnormal), (5, 0), "{report}");
    assert!(report.sockets.longest_gap_us >= 300_000, "{report}");
}
