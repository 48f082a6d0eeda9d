//! WebSockets of a service that is to be stopped: it is given no further message, what it was given is answered, and
//! the client learns that the rest was not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::service::Service;
use crate::stage::{Stage, holding, serving, until};
use crate::visitor::LIMIT;
use crate::websocket::service;

pub(crate) const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a service was asked over its WebSockets, in order.
pub(crate) type Heard = Arc<Mutex<Vec<String>>>;

/// A service that answers each message with the same, so long after it came.
async fn slow_echo(delay: Duration) -> (Service, Heard) {
    slow(delay, str::to_owned, None).await
}

/// A service that answers each call so long after it came, and speaks of other things all the time meanwhile.
async fn slow_answerer(delay: Duration) -> (Service, Heard) {
    let answer = |call: &str| call.replace(r#","method":"a""#, "");
    slow(delay, answer, Some(r#"{"type":"event"}"#)).await
}

/// A service that gives each message its answer so long after it came. While any is due it says `meanwhile`, if anything.
async fn slow(
    delay: Duration,
    answer: fn(&str) -> String,
    meanwhile: Option<&'static str>,
) -> (Service, Heard) {
    let heard = Heard::default();
    let log = heard.clone();
    let service = service(move |stream| {
        let log = log.clone();
        async move {
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            let (mut answers, mut calls) = socket.split();
            let mut due = FuturesUnordered::new();
            let mut ticks = interval(Duration::from_millis(5));
            loop {
                tokio::select! {
                    call = calls.next() => match call?.ok()? {
                        Message::Text(text) => {
                            log.lock().unwrap().push(text.to_string());
                            due.push(async move {
                                sleep(delay).await;
                                answer(&text)
                            });
                        }
                        Message::Close(_) => return Some(()),
                        _ => answers.flush().await.ok()?,
                    },
                    Some(text) = due.next() => answers.send(Message::text(text)).await.ok()?,
                    _ = ticks.tick(), if meanwhile.is_some() && !due.is_empty() => {
                        answers.send(Message::text(meanwhile.unwrap_or_default())).await.ok()?;
                    }
                }
            }
        }
    })
    .await;
    (service, heard)
}

pub(crate) type Socket = WebSocketStream<TcpStream>;

pub(crate) async fn open(stage: &Stage) -> Socket {
    let mut visitor = stage.visitor().await;
    visitor.send(HANDSHAKE).await;
    assert_eq!(visitor.head().await.status, 101);
    assert!(visitor.buffer.is_empty());
    WebSocketStream::from_raw_socket(visitor.stream, Role::Client, None).await
}

/// All texts until the farewell, and its code.
pub(crate) async fn until_farewell(mut answers: SplitStream<Socket>) -> (Vec<String>, u16) {
    let mut texts = Vec::new();
    loop {
        let message = timeout(LIMIT, answers.next()).await.expect("a message in time");
        match message.expect("a farewell before the end").expect("a whole message") {
            Message::Text(text) => texts.push(text.to_string()),
            Message::Close(frame) => return (texts, frame.expect("a code").code.into()),
            _ => {}
        }
    }
}

pub(crate) async fn text(socket: &mut Socket) -> String {
    loop {
        let message = timeout(LIMIT, socket.next()).await.expect("a message in time");
        if let Message::Text(text) = message.expect("no end yet").unwrap() {
            return text.to_string();
        }
    }
}

/// A client that calls every few milliseconds, whatever it is answered, until its socket is closed. How many calls have
/// left so far is told.
fn call_on(mut calls: SplitSink<Socket, Message>) -> (JoinHandle<()>, watch::Receiver<usize>) {
    let (sent, told) = watch::channel(0);
    let calling = tokio::spawn(async move {
        let mut instants = interval(Duration::from_millis(3));
        loop {
            instants.tick().await;
            let number = *sent.borrow();
            if calls.send(Message::text(number.to_string())).await.is_err() {
                return;
            }
            sent.send_replace(number + 1);
        }
    });
    (calling, told)
}

#[tokio::test]
async fn what_reached_the_service_before_a_hold_is_answered_and_nothing_reaches_it_afterwards() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::from_millis(30)).await;
    stage.serve(service.address).await;
    let (calls, answers) = open(&stage).await.split();
    let reading = tokio::spawn(until_farewell(answers));
    let (calling, sent) = call_on(calls);
    until("calls under way", || heard.lock().unwrap().len() > 20).await;
    stage.hold("switch").await;
    assert_eq!(stage.daemon.answers(LIMIT, LIMIT).await.unwrap(), 0);
    let before = heard.lock().unwrap().clone();
    let draining = stage.begin_drain().await;
    let held = *sent.borrow();
    until("calls during the drain", || *sent.borrow() > held + 20).await;
    assert_eq!(*heard.lock().unwrap(), before, "nothing more reaches the service");
    service.stop().await;
    let (answered, code) = reading.await.unwrap();
    assert_eq!((&answered, code), (&before, 1012), "each of them is answered, and then the client is told");
    assert_eq!(*heard.lock().unwrap(), before);
    assert_eq!(draining.await.unwrap().websockets, 1);
    calling.abort();
    let stats = stage.until("over", |stats| stats.websockets == 0).await;
    assert!(stats.withheld_total > 20, "{stats:?}");
}

#[tokio::test]
async fn a_client_that_calls_on_is_told_long_before_the_drains_limit_that_nobody_takes_its_calls() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::ZERO).await;
    stage.serve(service.address).await;
    let (calls, answers) = open(&stage).await.split();
    let mut idle = open(&stage).await;
    let reading = tokio::spawn(until_farewell(answers));
    let (calling, _) = call_on(calls);
    until("calls under way", || heard.lock().unwrap().len() > 5).await;
    stage.hold("switch").await;
    assert_eq!(stage.daemon.answers(LIMIT, LIMIT).await.unwrap(), 0);
    let before = heard.lock().unwrap().clone();
    let draining = stage.begin_drain().await;
    assert_eq!(reading.await.unwrap(), (before.clone(), 1012));
    calling.abort();
    stage.until("the one socket is closed", |stats| stats.websockets == 1).await;
    assert!(!draining.is_finished(), "who asks nothing waits for the service's own farewell");
    service.stop().await;
    assert!(matches!(timeout(LIMIT, idle.next()).await, Ok(Some(Ok(Message::Close(Some(_)))))));
    assert_eq!(draining.await.unwrap().websockets, 2);
    assert_eq!(*heard.lock().unwrap(), before);
}

#[tokio::test]
async fn a_hold_that_reaches_its_limit_without_a_drain_tells_those_who_call() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::ZERO).await;
    stage.serve(service.address).await;
    let (calls, answers) = open(&stage).await.split();
    let reading = tokio::spawn(until_farewell(answers));
    let (calling, _) = call_on(calls);
    until("calls under way", || heard.lock().unwrap().len() > 5).await;
    stage.hold_for("switch", Duration::from_millis(100), None).await;
    assert_eq!(reading.await.unwrap().1, 1012);
    calling.abort();
    drop(service);
}

#[tokio::test]
async fn an_answer_that_is_still_due_keeps_a_socket_open_however_long_the_service_is_silent() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::from_millis(1200)).await;
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    socket.send(Message::text("before")).await.unwrap();
    until("the call is under way", || heard.lock().unwrap().len() == 1).await;
    stage.hold("switch").await;
    let draining = stage.begin_drain().await;
    socket.send(Message::text("after")).await.unwrap();
    assert_eq!(until_farewell(socket.split().1).await, (vec!["before".to_owned()], 1012));
    assert_eq!(draining.await.unwrap().websockets, 1);
    assert_eq!(*heard.lock().unwrap(), ["before"]);
}

#[tokio::test]
async fn a_hold_that_ends_with_the_same_service_passes_what_was_kept_in_its_order() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::ZERO).await;
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    socket.send(Message::text("0")).await.unwrap();
    assert_eq!(text(&mut socket).await, "0");
    stage.hold("look").await;
    socket.send(Message::text("1")).await.unwrap();
    socket.send(Message::Ping("still there".into())).await.unwrap();
    socket.send(Message::text("2")).await.unwrap();
    let pong = timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong("still there".into()), "control frames pass");
    assert_eq!(*heard.lock().unwrap(), ["0"]);
    // More than is kept: the client is not read until somebody takes it.
    let long = "x".repeat(8 << 20);
    let (mut calls, mut answers) = socket.split();
    let calling = tokio::spawn({
        let long = long.clone();
        async move {
            calls.send(Message::text(long)).await.unwrap();
            calls.send(Message::text("3")).await.unwrap();
        }
    });
    stage.daemon.set_posture(holding("look"), LIMIT).await.unwrap();
    assert!(!calling.is_finished());
    stage.daemon.set_posture(serving(service.address), LIMIT).await.unwrap();
    let mut answered = Vec::new();
    while answered.len() < 4 {
        if let Message::Text(text) = timeout(LIMIT, answers.next()).await.unwrap().unwrap().unwrap() {
            answered.push(text.to_string());
        }
    }
    assert!(answered == ["1", "2", &long, "3"], "kept in order");
    calling.await.unwrap();
    assert_eq!(stage.stats().await.withheld_total, 0);
}

#[tokio::test]
async fn what_was_kept_of_a_client_that_has_left_reaches_nobody() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::ZERO).await;
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    stage.hold("look").await;
    socket.send(Message::text("too late")).await.unwrap();
    drop(socket);
    let stats = stage.until("gone", |stats| stats.websockets == 0).await;
    assert_eq!(stats.withheld_total, 1);
    stage.serve(service.address).await;
    until("the service's side is closed", || service.open() == 0).await;
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_message_whose_first_fragment_has_passed_is_passed_to_its_end() {
    let stage = Stage::new().await;
    let (service, heard) = slow_echo(Duration::ZERO).await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.send(HANDSHAKE).await;
    assert_eq!(visitor.head().await.status, 101);
    visitor.send([0x01, 0x82, 0, 0, 0, 0, b'o', b'n']).await;
    // Its pong proves that the fragment before it has passed.
    visitor.send([0x89, 0x81, 0, 0, 0, 0, b'!']).await;
    while visitor.buffer.len() < 3 {
        assert!(visitor.fill().await > 0);
    }
    assert_eq!(visitor.buffer[..3], [0x8a, 1, b'!']);
    stage.hold("switch").await;
    let mut rest = vec![0x80, 0x81, 0, 0, 0, 0, b'e'];
    rest.extend([0x81, 0x83, 0, 0, 0, 0, b't', b'w', b'o']);
    visitor.send(rest).await;
    while visitor.buffer.len() < 8 {
        assert!(visitor.fill().await > 0);
    }
    assert_eq!(visitor.buffer[3..], *b"\x81\x03one");
    let drained = stage.daemon.drain(LIMIT, LIMIT * 2).await.unwrap();
    assert_eq!(drained.websockets, 1);
    while visitor.fill().await > 0 {}
    assert_eq!(visitor.buffer[8..12], [0x88, 17, 0x03, 0xf4]);
    assert_eq!(*heard.lock().unwrap(), ["one"]);
}

#[tokio::test]
async fn a_call_with_an_id_is_waited_for_however_much_else_the_service_says_meanwhile() {
    let stage = Stage::new().await;
    let (service, heard) = slow_answerer(Duration::from_millis(700)).await;
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    let _idle = open(&stage).await;
    socket.send(Message::text(r#"{"id":"x","method":"a"}"#)).await.unwrap();
    until("the call is under way", || heard.lock().unwrap().len() == 1).await;
    stage.hold("switch").await;
    let answered = tokio::spawn(async move { until_answered(&mut socket).await });
    assert_eq!(stage.daemon.answers(LIMIT, LIMIT).await.unwrap(), 0);
    let drained = stage.begin_drain().await;
    service.stop().await;
    assert_eq!(answered.await.unwrap(), r#"{"id":"x"}"#);
    assert_eq!(drained.await.unwrap().cut, 0);
}

async fn until_answered(socket: &mut Socket) -> String {
    loop {
        let text = text(socket).await;
        if !text.contains("event") {
            return text;
        }
    }
}

#[tokio::test]
async fn a_call_that_gets_no_answer_is_told_to_who_stops_the_service_and_counted_as_cut() {
    let stage = Stage::new().await;
    let (service, heard) = slow_answerer(Duration::from_secs(600)).await;
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    let mut other = open(&stage).await;
    for socket in [&mut socket, &mut other] {
        socket.send(Message::text(r#"{"id":1,"method":"a"}"#)).await.unwrap();
    }
    until("both calls are under way", || heard.lock().unwrap().len() == 2).await;
    stage.hold("switch").await;
    // What comes now is no call that the service got.
    socket.send(Message::text(r#"{"id":2,"method":"a"}"#)).await.unwrap();
    drop(other);
    stage.until("the other has left", |stats| stats.websockets == 1).await;
    assert_eq!(stage.daemon.answers(Duration::from_millis(50), LIMIT).await.unwrap(), 1);
    assert_eq!(stage.stats().await.cut, 0, "it may still come");
    let drained = stage.begin_drain().await;
    service.stop().await;
    assert_eq!(drained.await.unwrap().cut, 1, "who has left waits for nothing");
    let stats = stage.until("over", |stats| stats.websockets == 0).await;
    assert_eq!((stats.cut_total, stats.withheld_total), (1, 1));
}
