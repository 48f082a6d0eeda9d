//! Holding: who waits, for how long, in which order, and what becomes of those who leave.

use std::time::{Duration, Instant};

use cutover_front::{Limits, Posture, Upstream};
use tokio::io::AsyncWriteExt;

use crate::service::{Service, answer};
use crate::stage::{Stage, patience, until};
use crate::visitor::{LIMIT, Visitor};

#[tokio::test]
async fn a_front_starts_closed_and_requests_wait_for_the_first_service() {
    let stage = Stage::new().await;
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/first").await;
    stage.until("held", |stats| stats.held == 1).await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    assert_eq!(visitor.answer().await.body, "v1");
    let stats = stage.stats().await;
    assert_eq!((stats.held, stats.held_total, stats.served_total, stats.refused_5xx), (0, 1, 1, 0));
}

#[tokio::test]
async fn none_of_many_held_requests_fails() {
    let stage = Stage::new().await;
    let old = Service::named("old").await;
    stage.serve(old.address).await;
    assert_eq!(stage.visitor().await.get("/").await.body, "old");
    stage.hold("switch").await;
    old.stop().await;
    let mut visitors = Vec::new();
    for number in 0..300 {
        let mut visitor = stage.visitor().await;
        visitor.ask_for(&format!("/{number}")).await;
        stage.until("held", |stats| stats.held == number + 1).await;
        visitors.push(visitor);
    }
    let new = Service::named("new").await;
    stage.serve(new.address).await;
    for visitor in &mut visitors {
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "new"));
    }
    assert_eq!(new.targets().len(), 300);
    let stats = stage.stats().await;
    assert_eq!((stats.held, stats.cut, stats.refused_5xx, stats.held_since), (0, 0, 0, 300));
    assert!(stats.longest_wait_ms > 0);
}

#[tokio::test]
async fn the_order_on_one_connection_is_kept_across_a_hold() {
    let stage = Stage::new().await;
    let mut visitor = stage.visitor().await;
    let pipelined: String =
        (0..10).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n")).collect();
    visitor.send(pipelined).await;
    stage.until("held", |stats| stats.held == 1).await;
    let service = Service::start(|asked, stream| answer(stream, asked.target)).await;
    stage.serve(service.address).await;
    for number in 0..10 {
        assert_eq!(visitor.answer().await.body, format!("/{number}"));
    }
}

#[tokio::test]
async fn r71_after_its_limit_a_hold_answers_503_and_serves_again_without_a_restart() {
    let stage = Stage::new().await;
    stage.hold_for("short", Duration::from_millis(100), None).await;
    let mut waiting = stage.visitor().await;
    let refused = waiting.get("/").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));
    assert!(refused.body.contains("cutover recover web --retry"), "{}", refused.body);
    // Who comes later is not kept waiting.
    let asked = Instant::now();
    assert_eq!(stage.visitor().await.get("/").await.status, 503);
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert!(stage.stats().await.expired);
    let service = Service::named("v2").await;
    stage.serve(service.address).await;
    assert_eq!(waiting.get("/").await.body, "v2", "the same connection serves again");
    assert!(!stage.stats().await.expired);
}

#[tokio::test]
async fn telling_the_same_hold_again_does_not_restart_its_clock_and_another_one_does() {
    let stage = Stage::new().await;
    let limit = Duration::from_millis(150);
    stage.hold_for("one", limit, None).await;
    let began = Instant::now();
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/").await;
    while !stage.stats().await.expired {
        stage.hold_for("one", limit, None).await;
        assert!(began.elapsed() < LIMIT, "a hold that is told again and again must still end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(visitor.answer().await.status, 503);
    stage.hold_for("two", LIMIT, None).await;
    assert!(!stage.stats().await.expired);
    visitor.ask_for("/").await;
    stage.until("held again", |stats| stats.held == 1).await;
}

#[tokio::test]
async fn a_longer_limit_for_the_same_hold_counts_from_its_start() {
    let stage = Stage::new().await;
    stage.hold_for("one", Duration::from_millis(50), None).await;
    stage.until("expired", |stats| stats.expired).await;
    stage.hold_for("one", LIMIT, None).await;
    assert!(!stage.stats().await.expired);
    stage.hold_for("one", Duration::from_millis(50), None).await;
    assert!(stage.stats().await.expired, "the clock has run on");
}

#[tokio::test]
async fn a_held_request_whose_client_has_gone_is_never_forwarded() {
    let stage = Stage::new().await;
    let mut staying = stage.visitor().await;
    staying.ask_for("/staying").await;
    let mut bodyless = stage.visitor().await;
    bodyless.ask_for("/gone").await;
    let mut with_body = stage.visitor().await;
    with_body.send("POST /gone HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\n").await;
    with_body.send(vec![b'x'; 50_000]).await;
    let mut pipelined = stage.visitor().await;
    pipelined.send("GET /gone HTTP/1.1\r\nHost: web\r\n\r\nGET /gone HTTP/1.1\r\nHost: web\r\n\r\n").await;
    stage.until("held", |stats| stats.held == 4).await;
    drop((bodyless, with_body, pipelined));
    stage.until("noticed", |stats| stats.held == 1 && stats.gone_total == 3).await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    assert_eq!(staying.answer().await.status, 200);
    assert_eq!(service.targets(), ["/staying"]);
}

#[tokio::test]
async fn a_client_that_leaves_just_before_the_release_is_not_forwarded_either() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    let mut leaving = Vec::new();
    for number in 0..20 {
        let mut visitor = stage.visitor().await;
        visitor.send(format!("POST /{number} HTTP/1.1\r\nHost: web\r\nContent-Length: 900000\r\n\r\n")).await;
        visitor.send(vec![b'x'; 100_000]).await;
        leaving.push(visitor);
    }
    stage.until("held", |stats| stats.held == 20).await;
    drop(leaving);
    stage.serve(service.address).await;
    stage.until("all away", |stats| stats.held == 0 && stats.in_flight == 0 && stats.gone_total == 20).await;
    assert_eq!(service.targets(), [""; 0]);
}

#[tokio::test]
async fn a_held_body_is_not_read() {
    let stage = Stage::new().await;
    let mut visitor = stage.visitor().await;
    visitor.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000000\r\n\r\n").await;
    let chunk = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    // The front takes what its buffers hold and no more: from some point on, sending blocks.
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(300), visitor.stream.write(&chunk)).await
    {
        taken += sent.unwrap();
        assert!(taken < 50_000_000, "the front swallows a held body");
    }
}

#[tokio::test]
async fn an_expected_continue_is_not_promised_while_held() {
    let stage = Stage::new().await;
    let mut visitor = stage.visitor().await;
    visitor.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    stage.until("held", |stats| stats.held == 1).await;
    let early = tokio::time::timeout(Duration::from_millis(100), visitor.stream.readable()).await;
    assert!(early.is_err(), "nothing is said before the request may pass");
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    assert_eq!(visitor.head().await.status, 100);
    visitor.send("hi").await;
    assert_eq!(visitor.answer().await.status, 200);
    assert_eq!(service.asked()[0].body, b"hi");
}

#[tokio::test]
async fn more_than_may_wait_are_turned_away_with_503() {
    let stage = Stage::with(Limits { held_max: 2, ..Limits::default() }, LIMIT).await;
    let mut waiting = [stage.visitor().await, stage.visitor().await];
    for visitor in &mut waiting {
        visitor.ask_for("/").await;
    }
    stage.until("held", |stats| stats.held == 2).await;
    let refused = stage.visitor().await.get("/").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    for visitor in &mut waiting {
        assert_eq!(visitor.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_large_head_may_pass_but_not_wait() {
    let stage = Stage::new().await;
    let large = format!("GET / HTTP/1.1\r\nHost: web\r\nX-Large: {}\r\n\r\n", "x".repeat(70_000));
    let mut visitor = stage.visitor().await;
    visitor.send(&large).await;
    assert_eq!(visitor.answer().await.status, 503);
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    visitor.send(&large).await;
    assert_eq!(visitor.answer().await.status, 200);
    let mut huge = stage.visitor().await;
    let _ = huge
        .stream
        .write_all(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200_000)).as_bytes())
        .await;
    assert!([431, 400].contains(&huge.answer().await.status));
}

#[tokio::test]
async fn a_refused_connect_is_held_like_a_switch_and_never_502() {
    let stage = Stage::new().await;
    let gone = Service::named("old").await;
    let address = gone.address;
    stage.serve(address).await;
    assert_eq!(stage.visitor().await.get("/").await.body, "old");
    gone.stop().await;
    let mut get = stage.visitor().await;
    get.ask_for("/get").await;
    let mut post = stage.visitor().await;
    post.post("/post", "once").await;
    stage.until("held", |stats| stats.held == 2).await;
    let back = Service::named_at(address, "back").await;
    assert_eq!(get.answer().await.body, "back");
    assert_eq!(post.answer().await.body, "back");
    assert_eq!(back.asked().iter().filter(|asked| asked.body == b"once").count(), 1);
    assert_eq!(stage.stats().await.refused_5xx, 0);
}

#[tokio::test]
async fn an_upstream_that_refuses_beyond_the_limit_gives_503_until_it_is_back() {
    let stage = Stage::new().await;
    let gone = Service::named("old").await;
    let address = gone.address;
    gone.stop().await;
    let posture =
        Posture::Serve { upstream: Upstream::at(address), patience: patience(Duration::from_millis(100)) };
    stage.daemon.set_posture(posture, LIMIT).await.unwrap();
    assert_eq!(stage.visitor().await.get("/").await.status, 503);
    assert_eq!(stage.visitor().await.get("/").await.status, 503, "at once, too");
    let _back = Service::named_at(address, "back").await;
    stage.until("open again", |stats| !stats.expired).await;
    assert_eq!(stage.visitor().await.get("/").await.body, "back");
}

#[tokio::test]
async fn an_upstream_of_another_owner_is_a_refused_connect() {
    let stage = Stage::new().await;
    let service = Service::named("impostor").await;
    let me = rustix::process::geteuid().as_raw();
    let owned_by = |uid| Posture::Serve {
        upstream: Upstream { uid: Some(uid), ..Upstream::at(service.address) },
        patience: patience(LIMIT),
    };
    stage.daemon.set_posture(owned_by(me + 1), LIMIT).await.unwrap();
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/secret").await;
    stage.until("held", |stats| stats.held == 1).await;
    assert_eq!(service.targets(), [""; 0]);
    stage.daemon.set_posture(owned_by(me), LIMIT).await.unwrap();
    assert_eq!(visitor.answer().await.status, 200);
}

#[tokio::test]
async fn a_slow_head_does_not_keep_a_connection_for_ever() {
    let limits = Limits { head_timeout: Duration::from_millis(100), ..Limits::default() };
    let stage = Stage::with(limits, LIMIT).await;
    let mut slow = stage.visitor().await;
    slow.send("GET / HTTP/1.1\r\nHost: w").await;
    while !slow.is_closed().await {}
}

#[tokio::test]
async fn several_addresses_are_accepted_on() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut listeners = vec![stage.listeners[0].try_clone().unwrap()];
    let v6 = cutover_front::bind("[::1]:0".parse().unwrap());
    listeners.extend(v6);
    listeners.push(cutover_front::bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let mut before = stage.visitor().await;
    let addresses = stage.daemon.pass_listeners(&listeners, LIMIT).await.unwrap();
    assert_eq!(addresses.len(), listeners.len());
    for address in &addresses {
        assert_eq!(Visitor::to(*address).await.get("/").await.status, 200, "{address}");
    }
    assert_eq!(before.get("/").await.status, 200, "who was connected stays connected");
    let fewer = stage.daemon.pass_listeners(&stage.listeners, LIMIT).await.unwrap();
    assert_eq!(fewer, [stage.address]);
    drop(listeners);
    let closed = addresses[addresses.len() - 1];
    until("closed", || std::net::TcpStream::connect(closed).is_err()).await;
}
