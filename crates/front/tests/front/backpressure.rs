//! Clients that read late: what waits for them in the front.

use std::os::fd::AsFd;

use cutover_front::Say;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::claiming::{admitted, answer, call, claimed, gateway};
use crate::stage::Stage;
use crate::stopping::{HANDSHAKE, Socket};
use crate::visitor::{LIMIT, Visitor};

/// A client whose connection has small buffers in the kernel, so that what it does not read soon waits in the front.
async fn open_narrow(stage: &Stage) -> Socket {
    const KERNEL: usize = 64 * 1024;
    let socket = TcpSocket::new_v4().unwrap();
    // What is accepted inherits the listener's.
    for socket in [stage.listeners[0].as_fd(), socket.as_fd()] {
        set_socket_recv_buffer_size(socket, KERNEL).unwrap();
        set_socket_send_buffer_size(socket, KERNEL).unwrap();
    }
    let mut visitor = Visitor::on(timeout(LIMIT, socket.connect(stage.address)).await.unwrap().unwrap());
    visitor.send(HANDSHAKE).await;
    assert_eq!(visitor.head().await.status, 101);
    assert!(visitor.buffer.is_empty());
    WebSocketStream::from_raw_socket(visitor.stream, Role::Client, None).await
}

#[tokio::test]
async fn what_the_daemon_says_comes_in_its_order_however_late_it_is_read() {
    let (service, _) = gateway().await;
    let (stage, _other, _) = admitted(&service).await;
    let mut socket = open_narrow(&stage).await;
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
