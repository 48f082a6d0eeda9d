//! The switch itself: what is in flight when a hold begins, and what is left of it at the limit.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::service::{Service, answer, hear_out};
use crate::stage::{Stage, until};
use crate::visitor::LIMIT;

/// A service that answers only when it is told to.
pub(crate) async fn slow(go: Arc<Notify>) -> Service {
    Service::start(move |asked, stream| {
        let go = go.clone();
        async move {
            if asked.target == "/slow" {
                go.notified().await;
            }
            answer(stream, "slow".into()).await
        }
    })
    .await
}

#[tokio::test]
async fn idle_connections_close_with_the_hold_and_what_is_in_flight_may_finish() {
    let stage = Stage::new().await;
    let go = Arc::new(Notify::new());
    let service = slow(go.clone()).await;
    stage.serve(service.address).await;
    let mut busy = stage.visitor().await;
    busy.ask_for("/slow").await;
    until("asked", || service.asked().len() == 1).await;
    let mut idle = stage.visitor().await;
    assert_eq!(idle.get("/").await.status, 200);
    assert_eq!(service.open(), 2);
    stage.hold("switch").await;
    until("only the busy one is open", || service.open() == 1).await;
    idle.ask_for("/later").await;
    stage.until("held", |stats| stats.held == 1 && stats.in_flight == 1).await;
    let draining = stage.begin_drain().await;
    go.notify_one();
    let drained = draining.await.unwrap();
    assert_eq!((drained.open, drained.cut), (1, 0));
    assert_eq!(busy.answer().await.body, "slow");
    until("the busy one is closed, not kept", || service.open() == 0).await;
    assert_eq!(service.targets(), ["/slow", "/"], "nothing new reached a process that is told to stop");
    let new = Service::named("new").await;
    stage.serve(new.address).await;
    assert_eq!(idle.answer().await.body, "new");
}

#[tokio::test]
async fn what_is_left_at_the_drains_limit_is_cut_and_counted() {
    let stage = Stage::new().await;
    let service = Service::start(|asked, mut stream| async move {
        if asked.target == "/streaming" {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
                .await
                .ok()?;
        }
        hear_out(stream).await
    })
    .await;
    stage.serve(service.address).await;
    let (mut post, mut streaming, mut get) =
        (stage.visitor().await, stage.visitor().await, stage.visitor().await);
    post.post("/post", "x").await;
    streaming.ask_for("/streaming").await;
    get.ask_for("/get").await;
    assert_eq!(streaming.head().await.status, 200);
    until("all asked", || service.asked().len() == 3).await;
    stage.hold("switch").await;
    let drained = stage.daemon.drain(Duration::from_millis(50), LIMIT).await.unwrap();
    assert_eq!((drained.open, drained.cut), (3, 2), "the GET without an answer waits again instead");
    assert!(drained.waited >= Duration::from_millis(50));
    assert_eq!(post.answer().await.status, 502);
    assert_eq!(streaming.chunk().await.as_deref(), Some("part"));
    assert_eq!(streaming.chunk().await, None, "broken off, not ended");
    let stats = stage.until("held", |stats| stats.held == 1).await;
    assert_eq!((stats.cut, stats.in_flight, stats.refused_5xx), (2, 0, 1));
    until("nothing is left open", || service.open() == 0).await;
    let new = Service::named("new").await;
    stage.serve(new.address).await;
    assert_eq!(get.answer().await.body, "new");
    stage.hold("next").await;
    assert_eq!((stage.stats().await.cut, stage.stats().await.cut_total), (0, 2), "each hold counts its own");
}

#[tokio::test]
async fn a_process_that_ends_in_the_drain_ends_it() {
    let stage = Stage::new().await;
    let service = Service::start(|_, stream| hear_out(stream)).await;
    stage.serve(service.address).await;
    let mut post = stage.visitor().await;
    post.post("/", "x").await;
    until("asked", || service.asked().len() == 1).await;
    stage.hold("switch").await;
    let draining = stage.begin_drain().await;
    service.stop().await;
    let drained = draining.await.unwrap();
    assert_eq!((drained.open, drained.cut), (1, 1));
    assert!(drained.waited < LIMIT);
    assert_eq!(post.answer().await.status, 502);
}

#[tokio::test]
async fn a_connection_that_comes_about_during_the_hold_carries_nothing() {
    let stage = Stage::new().await;
    // With a full backlog, connections wait to be opened.
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&listener, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let listener = std::net::TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fillers.push(filler);
        assert!(fillers.len() < 10, "the backlog is never full");
    }
    stage.serve(address).await;
    let mut visitor = stage.visitor().await;
    visitor.post("/late", "x").await;
    stage.until("connecting", |stats| stats.in_flight == 1).await;
    stage.hold("switch").await;
    let arrived = tokio::task::spawn_blocking(move || {
        let mut arrived = Vec::new();
        for _ in 0..fillers.len() + 1 {
            let (mut stream, peer) = listener.accept().unwrap();
            if fillers.iter().all(|filler| filler.local_addr().unwrap() != peer) {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.read_to_end(&mut arrived).unwrap();
            }
        }
        arrived
    });
    assert_eq!(String::from_utf8(arrived.await.unwrap()).unwrap(), "");
    stage.until("held", |stats| stats.held == 1 && stats.in_flight == 0).await;
    let new = Service::named("new").await;
    stage.serve(new.address).await;
    assert_eq!(visitor.answer().await.body, "new");
}

#[tokio::test]
async fn a_drain_with_nothing_in_flight_ends_at_once() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    stage.visitor().await.get("/").await;
    stage.hold("switch").await;
    let drained = stage.daemon.drain(LIMIT, LIMIT).await.unwrap();
    assert_eq!((drained.open, drained.cut, drained.websockets), (0, 0, 0));
}

#[tokio::test]
async fn r70_switches_under_load_lose_no_request() {
    let stage = Stage::new().await;
    let mut service = Service::named("v0").await;
    stage.serve(service.address).await;
    let done = tokio_util::sync::CancellationToken::new();
    let mut load = Vec::new();
    for number in 0..8 {
        let (address, done) = (stage.address, done.clone());
        load.push(tokio::spawn(async move {
            let mut asked = 0;
            let mut visitor = crate::visitor::Visitor::to(address).await;
            while !done.is_cancelled() {
                if number % 2 == 0 {
                    visitor = crate::visitor::Visitor::to(address).await;
                }
                let answer = if number % 4 < 2 {
                    visitor.get("/get").await
                } else {
                    visitor.post("/post", "body").await;
                    visitor.answer().await
                };
                assert_eq!((answer.status, answer.is_whole), (200, true), "{answer:?}");
                asked += 1;
            }
            asked
        }));
    }
    for round in 0..20 {
        stage.until("traffic", |stats| stats.served_total > round * 50).await;
        stage.hold(&format!("switch {round}")).await;
        stage.daemon.drain(LIMIT, LIMIT).await.unwrap();
        service.stop().await;
        service = Service::named("next").await;
        stage.serve(service.address).await;
    }
    done.cancel();
    let mut asked = 0;
    for visitor in load {
        asked += visitor.await.expect("no request failed");
    }
    let stats = stage.stats().await;
    assert!(asked >= 950, "{asked}");
    assert_eq!((stats.cut_total, stats.refused_5xx, stats.bad_total), (0, 0, 0), "{stats:?}");
}
