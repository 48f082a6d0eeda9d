//! WebSockets: bytes pass untouched, and goodbyes are said in the right words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover_front::Posture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use futures_util::{SinkExt, StreamExt};

use crate::service::{Asked, Service};
use crate::stage::{Stage, notice, until};
use crate::visitor::{LIMIT, Visitor};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// A service whose WebSockets each run the given conduct on the raw stream, to its end.
pub(crate) async fn service<F, Fut>(conduct: F) -> Service
where
    F: Fn(TcpStream) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: Send> + Send + 'static,
{
    Service::start(move |_: Asked, mut stream| {
        let conduct = conduct.clone();
        async move {
            stream.write_all(ACCEPTED).await.ok()?;
            conduct(stream).await;
            None
        }
    })
    .await
}

async fn open(stage: &Stage) -> Visitor {
    let mut visitor = stage.visitor().await;
    visitor.send(HANDSHAKE).await;
    let answer = visitor.head().await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    assert!(answer.header("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")));
    visitor
}

async fn speaker(visitor: Visitor) -> WebSocketStream<TcpStream> {
    assert!(visitor.buffer.is_empty());
    let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    WebSocketStream::from_raw_socket(visitor.stream, Role::Client, Some(config)).await
}

type Received = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Received {
    tokio::time::timeout(LIMIT, socket.next()).await.expect("a message in time")
}

fn farewell(message: Received) -> (u16, String) {
    match message {
        Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
            (code.into(), reason.as_str().to_owned())
        }
        other => panic!("not a farewell: {other:?}"),
    }
}

#[tokio::test]
async fn every_byte_passes_untouched_in_both_directions() {
    let stage = Stage::new().await;
    let service = service(|mut stream: TcpStream| async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 || stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = open(&stage).await;
    assert_eq!(service.asked()[0].header("sec-websocket-extensions"), None, "compression is not negotiated");
    assert_eq!(service.asked()[0].header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    // Text in fragments with a ping between, reserved bits, binary, an unknown opcode, and 5 MiB in one frame.
    let mut bytes = Vec::new();
    bytes.extend([0x01, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3]);
    bytes.extend([0x89, 0x80, 5, 6, 7, 8]);
    bytes.extend([0x80, 0x81, 9, 9, 9, 9, b'd' ^ 9]);
    bytes.extend([0xc2, 0x80, 0, 0, 0, 0]);
    bytes.extend([0x8b, 0x80, 0, 0, 0, 0]);
    bytes.extend([0x82, 0xff]);
    bytes.extend((5_u64 << 20).to_be_bytes());
    bytes.extend([1, 1, 1, 1]);
    bytes.extend((0..5 << 20).map(|number: usize| (number % 251) as u8));
    let (mut reading, mut writing) = visitor.stream.split();
    let mut echoed = Vec::new();
    let receive = async {
        while echoed.len() < bytes.len() {
            assert!(reading.read_buf(&mut echoed).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(writing.write_all(&bytes), receive) })
        .await
        .unwrap()
        .0
        .unwrap();
    assert!(echoed == bytes);
    let stats = stage.stats().await;
    assert_eq!((stats.websockets, stats.in_flight, stats.upgraded_total), (1, 0, 1));
}

#[tokio::test]
async fn messages_of_a_real_pair_arrive_whole() {
    let stage = Stage::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let mut socket = accept_async_with_config(stream, Some(config)).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    stage.serve(address).await;
    let stream = TcpStream::connect(stage.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://web/ws", stream).await.unwrap();
    for message in
        [Message::text("hello"), Message::text("x".repeat(100_000)), Message::binary(vec![0; 3 << 20])]
    {
        socket.send(message.clone()).await.unwrap();
        assert!(next(&mut socket).await.unwrap().unwrap() == message);
    }
    socket.close(None).await.unwrap();
    while next(&mut socket).await.is_some() {}
    serving.await.unwrap();
    let stats = stage.until("over", |stats| stats.websockets == 0).await;
    assert_eq!((stats.closed_total, stats.abnormal_total), (0, 0), "who says goodbye is not cut");
}

#[tokio::test]
async fn r72_a_socket_left_at_the_drains_limit_is_closed_with_1012() {
    let stage = Stage::new().await;
    let service = service(|mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    stage.serve(service.address).await;
    let mut socket = speaker(open(&stage).await).await;
    stage.hold("switch").await;
    assert_eq!(stage.stats().await.websockets, 1, "a hold alone closes no socket");
    let reading = tokio::spawn(async move {
        let told = farewell(next(&mut socket).await);
        (told, next(&mut socket).await.is_none())
    });
    let drained = stage.daemon.drain(Duration::from_millis(50), LIMIT).await.unwrap();
    assert_eq!((drained.open, drained.websockets, drained.cut), (1, 1, 0));
    assert_eq!(reading.await.unwrap(), ((1012, "service restart".into()), true));
    until("the service's side is closed", || service.open() == 0).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_keep_a_cut_socket_at_the_service() {
    let stage = Stage::new().await;
    let service = service(|mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    stage.serve(service.address).await;
    let mut mute = open(&stage).await;
    stage.hold("switch").await;
    let begun = Instant::now();
    let draining = tokio::spawn({
        let daemon = stage.daemon.clone();
        async move { daemon.drain(Duration::ZERO, LIMIT).await.unwrap() }
    });
    until("the service's side is closed", || service.open() == 0).await;
    let closed = begun.elapsed();
    let drained = draining.await.unwrap();
    assert_eq!(drained.websockets, 1);
    assert!(closed < drained.waited, "while the client's farewell was still waited for");
    while mute.fill().await > 0 {}
    assert_eq!(mute.buffer[..4], [0x88, 17, 0x03, 0xf4]);
}

#[tokio::test]
async fn the_services_own_farewell_passes_first() {
    let stage = Stage::new().await;
    let stop = Arc::new(Notify::new());
    let service = service({
        let stop = stop.clone();
        move |mut stream: TcpStream| {
            let stop = stop.clone();
            async move {
                stop.notified().await;
                let event = b"{\"type\":\"event\",\"event\":\"shutdown\"}";
                let mut farewell = vec![0x81, event.len() as u8];
                farewell.extend_from_slice(event);
                farewell.extend([0x88, 2 + 3]);
                farewell.extend(1012_u16.to_be_bytes());
                farewell.extend(b"bye");
                stream.write_all(&farewell).await.unwrap();
            }
        }
    })
    .await;
    stage.serve(service.address).await;
    let mut socket = speaker(open(&stage).await).await;
    stage.hold("switch").await;
    let draining = stage.begin_drain().await;
    stop.notify_one();
    let event = next(&mut socket).await.unwrap().unwrap();
    assert!(event.to_text().unwrap().contains("shutdown"));
    assert_eq!(farewell(next(&mut socket).await), (1012, "bye".into()));
    assert!(next(&mut socket).await.is_none());
    let drained = draining.await.unwrap();
    assert_eq!((drained.open, drained.websockets), (1, 0));
    assert_eq!(stage.stats().await.abnormal_total, 0);
}

#[tokio::test]
async fn a_service_that_vanishes_is_reported_to_its_sockets_as_a_restart() {
    let stage = Stage::new().await;
    let gone = Arc::new(Notify::new());
    let service = service({
        let gone = gone.clone();
        move |stream: TcpStream| {
            let gone = gone.clone();
            async move {
                gone.notified().await;
                drop(stream);
            }
        }
    })
    .await;
    stage.serve(service.address).await;
    let mut socket = speaker(open(&stage).await).await;
    gone.notify_one();
    assert_eq!(farewell(next(&mut socket).await), (1012, "service restart".into()));
    assert!(next(&mut socket).await.is_none());
    let stats = stage.until("over", |stats| stats.websockets == 0).await;
    assert_eq!((stats.closed_total, stats.abnormal_total), (1, 1));
}

#[tokio::test]
async fn inside_a_frame_nothing_is_said() {
    let stage = Stage::new().await;
    let gone = Arc::new(Notify::new());
    let service = service({
        let gone = gone.clone();
        move |mut stream: TcpStream| {
            let gone = gone.clone();
            async move {
                stream.write_all(&[0x82, 100, 1, 2, 3]).await.unwrap();
                gone.notified().await;
            }
        }
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = open(&stage).await;
    while visitor.buffer.len() < 5 {
        assert!(visitor.fill().await > 0);
    }
    gone.notify_one();
    while visitor.fill().await > 0 {}
    assert_eq!(visitor.buffer, [0x82, 100, 1, 2, 3], "half a frame, and no close frame in its middle");
}

#[tokio::test]
async fn maintenance_closes_open_sockets_with_1013() {
    let stage = Stage::new().await;
    let service = service(|mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    stage.serve(service.address).await;
    let mut socket = speaker(open(&stage).await).await;
    let posture = Posture::Maintain { notice: notice(), upstream: None };
    stage.daemon.set_posture(posture, LIMIT).await.unwrap();
    assert_eq!(farewell(next(&mut socket).await).0, 1013);
}

#[tokio::test]
async fn a_new_socket_waits_through_a_hold_and_opens_at_the_new_service() {
    let stage = Stage::new().await;
    let mut visitor = stage.visitor().await;
    visitor.send(HANDSHAKE).await;
    stage.until("held", |stats| stats.held == 1).await;
    let service = service(|mut stream: TcpStream| async move {
        stream.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    stage.serve(service.address).await;
    assert_eq!(visitor.head().await.status, 101);
    while visitor.buffer.len() < 4 {
        assert!(visitor.fill().await > 0);
    }
    assert_eq!(visitor.buffer, [0x81, 2, b'h', b'i']);
}

#[tokio::test]
async fn what_the_client_says_last_still_reaches_a_service_that_is_speaking() {
    let stage = Stage::new().await;
    let heard = Arc::new(std::sync::Mutex::new(None));
    let left = Arc::new(Notify::new());
    let service = service({
        let (heard, left) = (heard.clone(), left.clone());
        move |mut stream: TcpStream| {
            let (heard, left) = (heard.clone(), left.clone());
            async move {
                left.notified().await;
                stream.write_all(&frame_of(100_000)).await.unwrap();
                let mut bytes = Vec::new();
                let ended = stream.read_to_end(&mut bytes).await.map_err(|error| error.kind());
                *heard.lock().unwrap() = Some((ended, bytes.len()));
            }
        }
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = open(&stage).await;
    // Small enough to have arrived when the client leaves: a refused write makes a kernel forget the rest.
    visitor.send(vec![0x8a; 20_000]).await;
    drop(visitor);
    left.notify_one();
    until("heard", || heard.lock().unwrap().is_some()).await;
    assert_eq!(heard.lock().unwrap().unwrap(), (Ok(20_000), 20_000));
    stage.until("over", |stats| stats.websockets == 0).await;
}

#[tokio::test]
async fn a_client_that_has_ended_its_half_still_hears_the_answer() {
    let stage = Stage::new().await;
    let service = service(|mut stream: TcpStream| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&[0x88, 2, 0x03, 0xe8]).await.unwrap();
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = open(&stage).await;
    visitor.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await;
    visitor.stream.shutdown().await.unwrap();
    while visitor.fill().await > 0 {}
    assert_eq!(visitor.buffer, [0x88, 2, 0x03, 0xe8]);
}

/// An unmasked binary frame of so many zero bytes.
fn frame_of(size: u64) -> Vec<u8> {
    let mut frame = vec![0x82, 127];
    frame.extend(size.to_be_bytes());
    frame.resize(frame.len() + usize::try_from(size).unwrap(), 0);
    frame
}

#[tokio::test]
async fn the_probe_lane_opens_sockets_while_holding() {
    let stage = Stage::new().await;
    let service = service(|mut stream: TcpStream| async move {
        stream.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    stage.hold_for("switch", LIMIT, Some(service.address)).await;
    let mut prober = stage.prober().await;
    prober.send(HANDSHAKE).await;
    assert_eq!(prober.head().await.status, 101);
    while prober.buffer.len() < 4 {
        assert!(prober.fill().await > 0);
    }
    assert_eq!(stage.stats().await.websockets, 0);
}

#[tokio::test]
async fn an_upgrade_to_anything_else_is_an_ordinary_request() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor
        .send("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        .await;
    assert_eq!(visitor.answer().await.status, 200);
    assert_eq!(service.asked()[0].header("upgrade"), None);
}
