//! Clients that call much or read late: what waits for them in the front.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cutover_front::Say;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::claiming::{admitted, answer, call, claimed, gateway, saying};
use crate::stage::Stage;
use crate::stopping::{HANDSHAKE, Socket};
use crate::visitor::{LIMIT, Visitor};

/// More than all buffers between a client and the front hold, several times over.
const CALLS: usize = 40_000;
/// How many of them leave at once.
const BURST: usize = 500;
/// One call in so many is for the service.
const SERVICES: usize = 100;
/// How many claimed calls of one client may wait for the daemon.
const WAITING_MAX: usize = 16;

/// A client whose connection has buffers of about so many bytes in the kernel: what it does not read soon waits in the
/// front.
async fn open_narrow(stage: &Stage, kernel: usize) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    // What is accepted inherits the listener's.
    for socket in [stage.listeners[0].as_fd(), socket.as_fd()] {
        set_socket_recv_buffer_size(socket, kernel).unwrap();
        set_socket_send_buffer_size(socket, kernel).unwrap();
    }
    let mut visitor = Visitor::on(timeout(LIMIT, socket.connect(stage.address)).await.unwrap().unwrap());
    visitor.send(HANDSHAKE).await;
    assert_eq!(visitor.head().await.status, 101);
    assert!(visitor.buffer.is_empty());
    WebSocketStream::from_raw_socket(visitor.stream, Role::Client, None).await
}

/// Calls as fast as it can; tells how many have left so far.
fn flood(
    mut calls: SplitSink<Socket, Message>,
) -> (JoinHandle<SplitSink<Socket, Message>>, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&sent);
    let flooding = tokio::spawn(async move {
        for first in (0..CALLS).step_by(BURST) {
            for id in first..first + BURST {
                let method = if id % SERVICES == 0 { "health" } else { "update." };
                let text = json!({"id": id, "method": method}).to_string();
                calls.feed(Message::text(text)).await.unwrap();
            }
            calls.flush().await.unwrap();
            sent.fetch_add(BURST, Relaxed);
        }
        calls
    });
    (flooding, told)
}

async fn next(answers: &mut SplitStream<Socket>) -> Value {
    let message = timeout(LIMIT, answers.next()).await.expect("a message in time");
    serde_json::from_str(message.expect("no end yet").unwrap().to_text().unwrap()).unwrap()
}

/// Reads until all calls are answered but those that wait for the daemon. Each is answered once, in its order among those
/// that somebody else answers alike. Each answer is shown.
async fn read_all(answers: &mut SplitStream<Socket>, mut shown: impl FnMut(usize)) {
    let (mut put_off, mut served) = (Vec::new(), Vec::new());
    while put_off.len() + served.len() + WAITING_MAX < CALLS {
        let answer = next(answers).await;
        let id = usize::try_from(answer["id"].as_u64().unwrap()).unwrap();
        match answer["ok"].as_bool() {
            Some(true) => served.push(id),
            _ => put_off.push(id),
        }
        shown(put_off.len() + served.len());
    }
    let (service, claimed): (Vec<_>, Vec<_>) = (0..CALLS).partition(|id| id % SERVICES == 0);
    assert!(served == service, "each answer of the service's, in its order");
    assert!(put_off == claimed[WAITING_MAX..], "each answer of the front's, in its order");
}

#[tokio::test]
async fn what_the_daemon_says_comes_in_its_order_however_late_it_is_read() {
    let (service, _) = gateway().await;
    let (stage, _other, _) = admitted(&service).await;
    let mut socket = open_narrow(&stage, 64 * 1024).await;
    call(&mut socket, 1, "update.run").await;
    let got = claimed(&stage.daemon).await;
    let say = async |number: usize| {
        let message = json!({"number": number, "padding": "x".repeat(500)});
        let event = Say { connection: got.connection, answers: None, message, closes: false };
        assert!(stage.daemon.say(event, LIMIT).await.unwrap());
    };
    // More than the kernel takes waits in the front when the client begins to read, and more is said meanwhile.
    let (unread, all) = (1000, 3000);
    for number in 0..unread {
        say(number).await;
    }
    for number in 0..all {
        if unread + number < all {
            say(unread + number).await;
        }
        assert_eq!(answer(&mut socket).await["number"], number);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_not_heard_until_it_does() {
    let (service, _) = gateway().await;
    let (stage, mut other, _) = admitted(&service).await;
    let (calls, mut answers) = open_narrow(&stage, 64 * 1024).await.split();
    let (flooding, sent) = flood(calls);
    // Either it gets no further, however long others are served meanwhile, or it has been heard to its end.
    let mut before = 0;
    loop {
        for id in 0..100 {
            call(&mut other, id, "health").await;
            assert_eq!(answer(&mut other).await["id"], id);
        }
        let now = sent.load(Relaxed);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    assert!(before < CALLS / 2, "{before} of {CALLS} calls were heard");
    read_all(&mut answers, |_| {}).await;
    let _calls = flooding.await.unwrap();
    for _ in 0..WAITING_MAX {
        let got = claimed(&stage.daemon).await;
        assert!(stage.daemon.say(saying(&got, "done", false), LIMIT).await.unwrap());
        assert_eq!(next(&mut answers).await, "done", "the daemon's answers come too");
    }
}

#[tokio::test]
async fn a_client_that_calls_as_fast_as_it_can_is_heard_no_faster_than_it_is_answered() {
    let (service, _) = gateway().await;
    let (stage, _other, _) = admitted(&service).await;
    let (calls, mut answers) = open_narrow(&stage, 64 * 1024).await.split();
    let (flooding, sent) = flood(calls);
    let mut unanswered_max = 0;
    read_all(&mut answers, |answered| {
        unanswered_max = unanswered_max.max(sent.load(Relaxed).saturating_sub(answered));
    })
    .await;
    let _calls = flooding.await.unwrap();
    assert!(unanswered_max < CALLS / 2, "{unanswered_max} of {CALLS} calls waited for their answers");
}

#[tokio::test]
async fn a_slow_client_without_a_service_gets_the_whole_of_one_answer_while_another_is_due() {
    let (service, _) = gateway().await;
    let (stage, _other, _) = admitted(&service).await;
    let mut socket = open_narrow(&stage, 2 * 1024).await;
    call(&mut socket, 1, "update.run").await;
    call(&mut socket, 2, "update.status").await;
    let (long, other) = (claimed(&stage.daemon).await, claimed(&stage.daemon).await);
    service.stop().await;
    call(&mut socket, 3, "health").await;
    assert_eq!(answer(&mut socket).await["error"]["code"], "UNAVAILABLE");
    let message = "x".repeat(60 * 1024);
    assert!(stage.daemon.say(saying(&long, &message, false), LIMIT).await.unwrap());
    // A head of four bytes, and the quotes of the text.
    let mut missing = message.len() + 6;
    let (mut ticks, mut piece) = (interval(Duration::from_millis(20)), [0; 1024]);
    while missing > 0 {
        ticks.tick().await;
        let room = piece.len().min(missing);
        let read = socket.get_mut().read(&mut piece[..room]);
        missing -=
            timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("{missing} bytes never came")).unwrap();
    }
    assert!(stage.daemon.say(saying(&other, "done", false), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "done");
}
