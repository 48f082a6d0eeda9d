//! The daemon's hold on the front: replaced, lost, found again.

use std::os::fd::AsFd;
use std::time::Duration;

use cutover_front::control::ControlClient;
use cutover_front::{Error, Posture};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::service::{Service, hear_out};
use crate::stage::{Stage, serving};
use crate::visitor::{LIMIT, Visitor};

#[tokio::test]
async fn r74_when_the_daemon_dies_the_front_goes_on_in_its_last_posture() {
    let mut stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    assert_eq!(visitor.get("/").await.status, 200);
    let path = stage.control();
    let next = ControlClient::connect(&path, LIMIT).await.unwrap();
    stage.daemon.gone().await;
    drop(std::mem::replace(&mut stage.daemon, next));
    assert_eq!(visitor.get("/").await.status, 200);
    assert_eq!(stage.daemon.hello().posture, serving(service.address));
    assert_eq!(stage.daemon.hello().listening, [stage.address]);
}

#[tokio::test]
async fn a_hold_ends_at_its_own_limit_without_a_daemon() {
    let stage = Stage::new().await;
    stage.hold_for("switch", Duration::from_millis(100), None).await;
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/").await;
    // A connection that never orders anything takes the daemon's place and dies.
    drop(UnixStream::connect(stage.control()).await.unwrap());
    stage.daemon.gone().await;
    assert!(stage.daemon.is_gone());
    assert!(matches!(stage.daemon.stats(LIMIT).await, Err(Error::Gone { .. })));
    assert_eq!(visitor.answer().await.status, 503);
}

#[tokio::test]
async fn listening_sockets_are_handed_back_to_a_daemon_that_lost_its_own() {
    let mut stage = Stage::new().await;
    stage.listeners.clear();
    let daemon = ControlClient::connect(&stage.control(), LIMIT).await.unwrap();
    let back = daemon.fetch_listeners(LIMIT).await.unwrap();
    assert_eq!(back.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>(), [stage.address]);
    // Passing what is already there disturbs nobody.
    let service = Service::named("v1").await;
    daemon.set_posture(serving(service.address), LIMIT).await.unwrap();
    let mut visitor = stage.visitor().await;
    assert_eq!(visitor.get("/").await.status, 200);
    assert_eq!(daemon.pass_listeners(&back, LIMIT).await.unwrap(), [stage.address]);
    assert_eq!(visitor.get("/").await.status, 200);
    assert_eq!(Visitor::to(stage.address).await.get("/").await.status, 200);
}

#[tokio::test]
async fn what_does_not_listen_is_refused_and_nothing_changes() {
    let stage = Stage::new().await;
    let connected = std::net::TcpStream::connect(stage.address).unwrap();
    let not_a_listener = std::net::TcpListener::from(connected.as_fd().try_clone_to_owned().unwrap());
    let refused = stage.daemon.pass_listeners(&[not_a_listener], LIMIT).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    assert_eq!(stage.visitor().await.get("/").await.status, 200);
}

#[tokio::test]
async fn orders_are_obeyed_while_a_drain_is_under_way() {
    let stage = Stage::new().await;
    let service = Service::start(|_, stream| hear_out(stream)).await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.post("/", "x").await;
    stage.until("in flight", |stats| stats.in_flight == 1).await;
    stage.hold("switch").await;
    let draining = stage.begin_drain().await;
    for _ in 0..3 {
        assert_eq!(stage.stats().await.posture, "hold");
    }
    assert!(!draining.is_finished());
    service.stop().await;
    assert_eq!(draining.await.unwrap().cut, 1);
}

#[tokio::test]
async fn an_order_that_is_not_understood_ends_the_connection_and_nothing_else() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut stranger = BufReader::new(UnixStream::connect(stage.control()).await.unwrap());
    let mut hello = String::new();
    stranger.read_line(&mut hello).await.unwrap();
    assert!(hello.starts_with("{\"protocol\":3,"), "{hello}");
    stranger.write_all(b"{\"id\":1,\"order\":{\"posture\":{\"hold\":{\"surprise\":1}}}}\n").await.unwrap();
    let mut rest = String::new();
    stranger.read_line(&mut rest).await.unwrap();
    assert_eq!(rest, "");
    assert_eq!(stage.visitor().await.get("/").await.status, 200);
}

#[tokio::test]
async fn where_no_front_is_the_daemon_is_told_so_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.sock");
    let reached = ControlClient::connect(&path, Duration::from_millis(50)).await;
    assert!(matches!(reached, Err(Error::Reach { .. })));
    let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let reached = ControlClient::connect(&path, Duration::from_millis(50)).await;
    assert!(matches!(reached, Err(Error::Reach { .. })), "a socket that never greets");
}

#[tokio::test]
async fn the_posture_that_was_acknowledged_is_the_posture() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    for round in 0..50 {
        stage.serve(service.address).await;
        let mut visitor = stage.visitor().await;
        assert_eq!(visitor.get("/").await.status, 200);
        let before = service.asked().len();
        stage.hold(&format!("{round}")).await;
        visitor.ask_for("/").await;
        stage.until("held", |stats| stats.held == 1).await;
        assert_eq!(service.asked().len(), before);
        let posture = Posture::Maintain { notice: crate::stage::notice(), upstream: None };
        stage.daemon.set_posture(posture, LIMIT).await.unwrap();
        assert_eq!(visitor.answer().await.status, 503);
    }
}
