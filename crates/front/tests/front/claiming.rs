//! Calls that the daemon answers inside the service's own WebSocket stream.

use std::time::Duration;

use cutover_front::control::ControlClient;
use cutover_front::{Claim, Claimed, EventPlace, Place, Say};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::service::Service;
use crate::stage::{Stage, until};
use crate::stopping::{Heard, Socket, open, text};
use crate::visitor::LIMIT;
use crate::websocket::service;

fn claim() -> Claim {
    Claim {
        prefixes: vec!["update.".into()],
        hello: "connect".into(),
        scopes: "/payload/auth/scopes".into(),
        protocol: "/payload/protocol".into(),
        places: vec![
            Place { pointer: "/payload/snapshot/available".into(), value: Some(json!({"latest": "2.0.0"})) },
            Place { pointer: "/payload/snapshot/known".into(), value: Some(json!(1)) },
            Place { pointer: "/payload/snapshot/own".into(), value: None },
            Place { pointer: "/payload/nowhere/at".into(), value: Some(json!(1)) },
        ],
        events: vec![EventPlace {
            event: "update.available".into(),
            place: Place {
                pointer: "/payload/updateAvailable".into(),
                value: Some(json!({"latest": "2.0.0"})),
            },
        }],
    }
}

/// A service that admits everybody, answers every call with its method, and closes with 1012 when it is told `leave`.
pub(crate) async fn gateway() -> (Service, Heard) {
    let heard = Heard::default();
    let log = heard.clone();
    let service = service(move |stream| {
        let log = log.clone();
        async move {
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                let call: Value = serde_json::from_str(&text).unwrap_or_default();
                log.lock().unwrap().push(text.to_string());
                let payload = match call["method"].as_str() {
                    Some("connect") => json!({
                        "protocol": 4, "auth": {"scopes": ["operator.admin"]},
                        "snapshot": {"known": 0, "available": null, "own": "of the service"},
                    }),
                    Some("events") => {
                        for event in events() {
                            socket.send(event.0).await.ok()?;
                        }
                        json!("told")
                    }
                    Some("leave") => {
                        socket.close(None).await.ok()?;
                        continue;
                    }
                    Some("flood") => {
                        flood(&mut socket).await?;
                        json!("flooded")
                    }
                    method => json!(method),
                };
                let answer = json!({"type": "res", "id": call["id"], "ok": true, "payload": payload});
                socket.send(Message::text(answer.to_string())).await.ok()?;
            }
            Some(())
        }
    })
    .await;
    (service, heard)
}

/// Messages of a service, and whether they pass as they are.
fn events() -> Vec<(Message, bool)> {
    let own = r#"{"type":"event","event":"update.available","payload":{"updateAvailable":{"latest":"1.5.0"}},"seq":1}"#;
    let late = format!(
        r#"{{"type":"event","payload":{{"updateAvailable":null,"notes":"{}"}},"event":"update.available","seq":1}}"#,
        "x".repeat(10_000)
    );
    let named = r#"{"type":"event", "event":"tick","payload":{"event":"update.available"}, "seq":2}"#;
    let same =
        r#"{"type":"event", "event":"update.available","payload":{"updateAvailable":{"latest":"2.0.0"}}}"#;
    let said = r#"{"type":"res","id":"1","ok":true,"payload":"the event \"update.available\""}"#;
    let pieces = |text: &str| -> Vec<Message> {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(9).collect();
        let frame = |(number, piece): (usize, &&[u8])| {
            let code = if number == 0 { OpCode::Data(Data::Text) } else { OpCode::Data(Data::Continue) };
            Message::Frame(Frame::message(piece.to_vec(), code, number + 1 == pieces.len()))
        };
        pieces.iter().enumerate().map(frame).collect()
    };
    let corrected = [Message::text(own), Message::binary(own.as_bytes()), Message::text(late)];
    let passing =
        [Message::text(named), Message::binary(named.as_bytes()), Message::text(said), Message::text(same)];
    let mut all: Vec<(Message, bool)> = corrected.into_iter().map(|message| (message, false)).collect();
    all.extend(pieces(own).into_iter().map(|message| (message, false)));
    all.extend(passing.into_iter().map(|message| (message, true)));
    all.extend(pieces(named).into_iter().map(|message| (message, true)));
    all
}

/// One message in a great many fragments.
async fn flood(socket: &mut Socket) -> Option<()> {
    for number in 0..2000 {
        let code = if number == 0 { OpCode::Data(Data::Text) } else { OpCode::Data(Data::Continue) };
        let frame = Frame::message("x".repeat(1000), code, number == 1999);
        socket.send(Message::Frame(frame)).await.ok()?;
    }
    Some(())
}

pub(crate) async fn call(socket: &mut Socket, id: u64, method: &str) {
    let call = json!({"type": "req", "id": id, "method": method, "params": {}});
    socket.send(Message::text(call.to_string())).await.unwrap();
}

pub(crate) async fn answer(socket: &mut Socket) -> Value {
    serde_json::from_str(&text(socket).await).unwrap()
}

/// A stage whose claims are set, and a client that is admitted.
pub(crate) async fn admitted(service: &Service) -> (Stage, Socket, Value) {
    let stage = Stage::new().await;
    stage.daemon.claim(Some(claim()), LIMIT).await.unwrap();
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    call(&mut socket, 0, "connect").await;
    let hello = answer(&mut socket).await;
    (stage, socket, hello)
}

pub(crate) async fn claimed(daemon: &ControlClient) -> Claimed {
    timeout(LIMIT, daemon.claimed()).await.expect("a claimed call")
}

pub(crate) fn saying(claimed: &Claimed, message: &str, closes: bool) -> Say {
    let answers = Some(claimed.call["id"].clone());
    Say { connection: claimed.connection, answers, message: json!(message), closes }
}

#[tokio::test]
async fn a_claimed_call_reaches_the_daemon_with_the_sessions_rights_and_never_the_service() {
    let (service, heard) = gateway().await;
    let (stage, mut socket, hello) = admitted(&service).await;
    assert_eq!(
        hello["payload"]["snapshot"],
        json!({"known": 1, "available": {"latest": "2.0.0"}}),
        "whatever it says itself"
    );
    assert_eq!(hello["payload"]["auth"]["scopes"], json!(["operator.admin"]));
    call(&mut socket, 1, "update.run").await;
    call(&mut socket, 2, "health").await;
    assert_eq!(answer(&mut socket).await["id"], 2, "others are answered meanwhile");
    let got = claimed(&stage.daemon).await;
    assert_eq!((got.scopes.as_slice(), got.protocol), (&["operator.admin".to_owned()][..], Some(4)));
    assert_eq!(got.call, json!({"type": "req", "id": 1, "method": "update.run", "params": {}}));
    assert!(stage.daemon.say(saying(&got, "done", false), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "done");
    assert!(heard.lock().unwrap().iter().all(|call| !call.contains("update.")));
    socket.close(None).await.unwrap();
    stage.until("gone", |stats| stats.websockets == 0).await;
    assert!(!stage.daemon.say(saying(&got, "again", false), LIMIT).await.unwrap(), "nobody is there");
}

#[tokio::test]
async fn an_event_says_what_the_daemon_says_in_its_turn_and_all_others_pass_unchanged() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    call(&mut socket, 1, "events").await;
    let mut told = until_told(&mut socket).await;
    // Text, binary, with its name last, and in pieces: none is missing, and none is out of turn.
    for corrected in told.drain(..4) {
        let event: Value = serde_json::from_slice(&corrected.into_data()).unwrap();
        assert_eq!(event["payload"]["updateAvailable"], json!({"latest": "2.0.0"}), "{event}");
        assert_eq!((&event["event"], &event["seq"]), (&json!("update.available"), &json!(1)));
    }
    // A client puts fragments together.
    let whole =
        events().into_iter().filter(|(message, passes)| *passes && !matches!(message, Message::Frame(_)));
    let mut expected: Vec<Message> = whole.map(|(message, _)| message).collect();
    expected.push(expected[0].clone());
    assert_eq!(told, expected);
    // What is claimed later holds for the events of this one, too.
    let mut later = claim();
    later.events[0].place.value = None;
    stage.daemon.claim(Some(later), LIMIT).await.unwrap();
    call(&mut socket, 2, "events").await;
    let first = until_told(&mut socket).await.remove(0);
    assert_eq!(serde_json::from_slice::<Value>(&first.into_data()).unwrap()["payload"], json!({}));
}

/// What a service tells up to its answer that it has told.
async fn until_told(socket: &mut Socket) -> Vec<Message> {
    let mut told = Vec::new();
    loop {
        let message = timeout(LIMIT, socket.next()).await.expect("in time").expect("a message").unwrap();
        if matches!(&message, Message::Text(text) if text.contains("\"told\"")) {
            return told;
        }
        told.push(message);
    }
}

#[tokio::test]
async fn a_claimed_call_before_the_session_is_open_bears_no_rights() {
    let (service, _) = gateway().await;
    let stage = Stage::new().await;
    stage.daemon.claim(Some(claim()), LIMIT).await.unwrap();
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    call(&mut socket, 1, "update.run").await;
    let got = claimed(&stage.daemon).await;
    assert_eq!((got.scopes.len(), got.protocol), (0, None));
}

#[tokio::test]
async fn long_calls_that_wait_for_the_daemon_are_few() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    let long = "x".repeat(200 * 1024);
    for id in 1..=3 {
        let call = json!({"type": "req", "id": id, "method": "update.run", "params": {"note": long}});
        socket.send(Message::text(call.to_string())).await.unwrap();
    }
    call(&mut socket, 4, "update.status").await;
    for id in 2..=3 {
        let put_off = answer(&mut socket).await;
        assert_eq!((&put_off["id"], &put_off["error"]["code"]), (&json!(id), &json!("UNAVAILABLE")));
    }
    let got = claimed(&stage.daemon).await;
    assert_eq!(got.call["id"], 1, "one alone may be long");
    assert_eq!(claimed(&stage.daemon).await.call["id"], 4, "a short one has room beside it");
    assert!(stage.daemon.say(saying(&got, "done", false), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "done");
    let again = json!({"type": "req", "id": 5, "method": "update.run", "params": {"note": long}});
    socket.send(Message::text(again.to_string())).await.unwrap();
    assert_eq!(claimed(&stage.daemon).await.call["id"], 5, "what was answered is not kept");
}

#[tokio::test]
async fn what_is_not_claimed_passes_unchanged() {
    let (service, _) = gateway().await;
    let stage = Stage::new().await;
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    call(&mut socket, 0, "connect").await;
    assert_eq!(answer(&mut socket).await["payload"]["snapshot"]["available"], Value::Null);
    call(&mut socket, 1, "update.run").await;
    assert_eq!(answer(&mut socket).await["payload"], "update.run", "nothing is claimed");
    call(&mut socket, 9, "events").await;
    let own = events().swap_remove(0).0;
    assert_eq!(text(&mut socket).await, own.to_text().unwrap(), "nothing is corrected");
    while !text(&mut socket).await.contains("\"told\"") {}
    stage.daemon.claim(Some(claim()), LIMIT).await.unwrap();
    call(&mut socket, 2, "update.run").await;
    assert_eq!(answer(&mut socket).await["payload"], "update.run", "an older WebSocket stays as it is");
}

#[tokio::test]
async fn a_client_that_waits_for_the_daemon_keeps_its_websocket_while_the_service_is_gone() {
    let (service, heard) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    call(&mut socket, 1, "update.run").await;
    let got = claimed(&stage.daemon).await;
    stage.hold("switch").await;
    call(&mut socket, 2, "too late").await;
    assert_eq!(stage.daemon.answers(LIMIT, LIMIT).await.unwrap(), 0);
    let draining = stage.begin_drain().await;
    service.stop().await;
    assert_eq!(draining.await.unwrap().cut, 0, "the drain does not wait for who waits for the daemon");
    let put_off = answer(&mut socket).await;
    assert_eq!((&put_off["id"], &put_off["error"]["code"]), (&json!(2), &json!("UNAVAILABLE")));
    assert!(put_off["error"]["retryAfterMs"].is_u64(), "{put_off}");
    socket.send(Message::Ping("still there".into())).await.unwrap();
    call(&mut socket, 3, "health").await;
    let pong = timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong("still there".into()));
    assert_eq!(answer(&mut socket).await["id"], 3);
    call(&mut socket, 4, "update.status").await;
    let status = claimed(&stage.daemon).await;
    assert!(stage.daemon.say(saying(&status, "under way", false), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "under way");
    assert!(stage.daemon.say(saying(&got, "done", true), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "done");
    let Some(Ok(Message::Close(Some(frame)))) = timeout(LIMIT, socket.next()).await.unwrap() else {
        panic!("no farewell")
    };
    assert_eq!(u16::from(frame.code), 1012);
    let stats = stage.until("gone", |stats| stats.websockets == 0).await;
    assert_eq!(stats.cut_total, 0);
    assert_eq!(heard.lock().unwrap().len(), 1, "only the call that opened the session");
}

#[tokio::test]
async fn the_services_own_goodbye_is_kept_from_a_client_that_waits_for_the_daemon_and_from_no_other() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    let mut other = open(&stage).await;
    call(&mut socket, 1, "update.run").await;
    let got = claimed(&stage.daemon).await;
    call(&mut socket, 2, "leave").await;
    call(&mut other, 3, "leave").await;
    assert!(matches!(timeout(LIMIT, other.next()).await, Ok(Some(Ok(Message::Close(_))))));
    while let Ok(Some(Ok(_))) = timeout(LIMIT, other.next()).await {}
    // The service has left; its client has not noticed.
    until("the service has left both", || service.open() == 0).await;
    call(&mut socket, 5, "health").await;
    assert_eq!(answer(&mut socket).await["error"]["code"], "UNAVAILABLE");
    assert!(stage.daemon.say(saying(&got, "done", true), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "done");
}

#[tokio::test]
async fn a_claimed_call_without_a_daemon_is_put_off_and_an_unanswered_one_is_offered_to_the_next() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    call(&mut socket, 1, "update.run").await;
    assert_eq!(claimed(&stage.daemon).await.call["id"], 1);
    let next = ControlClient::connect(&stage.control(), LIMIT).await.unwrap();
    let again = claimed(&next).await;
    assert_eq!(again.call["id"], 1);
    drop(next);
    // A front notices the end of a connection in its own time.
    let put_off = loop {
        call(&mut socket, 2, "update.status").await;
        if let Ok(text) = timeout(Duration::from_millis(20), text(&mut socket)).await {
            break serde_json::from_str::<Value>(&text).unwrap();
        }
    };
    assert_eq!(put_off["error"]["code"], "UNAVAILABLE");
    let last = ControlClient::connect(&stage.control(), LIMIT).await.unwrap();
    let third = claimed(&last).await;
    assert!(third.call["id"] == 1 && third.age >= again.age, "{third:?}");
    assert!(last.say(saying(&third, "done", false), LIMIT).await.unwrap());
    // Before it come the answers to those that were put off.
    while answer(&mut socket).await != "done" {}
}

#[tokio::test]
async fn a_claimed_call_in_fragments_is_claimed_and_one_that_cannot_be_judged_is_refused() {
    let (service, heard) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    let whole = r#"{"type":"req","id":1,"method":"update.run"}"#;
    for (number, piece) in whole.as_bytes().chunks(7).enumerate() {
        let code = if number == 0 { OpCode::Data(Data::Text) } else { OpCode::Data(Data::Continue) };
        let frame = Frame::message(piece.to_vec(), code, (number + 1) * 7 >= whole.len());
        socket.send(Message::Frame(frame)).await.unwrap();
        socket.send(Message::Ping("between".into())).await.unwrap();
    }
    assert_eq!(claimed(&stage.daemon).await.call["id"], 1);
    let late = format!(r#"{{"params":"{}","method":"update.run","id":2}}"#, "x".repeat(400_000));
    socket.send(Message::text(late)).await.unwrap();
    let code = loop {
        match timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1009);
    assert_eq!(heard.lock().unwrap().len(), 1);
}

async fn code(socket: &mut Socket) -> u16 {
    loop {
        let message = timeout(LIMIT, socket.next()).await.expect("in time").expect("a farewell").unwrap();
        if let Message::Close(frame) = message {
            return frame.unwrap().code.into();
        }
    }
}

#[tokio::test]
async fn a_call_that_the_daemon_could_not_read_is_refused_and_costs_it_nothing() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    for depth in [60, 100, 120, 125, 126, 127, 128, 500] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let text = format!(r#"{{"id":1,"method":"update.run","params":{open}{close}}}"#);
        socket.send(Message::text(text)).await.unwrap();
        if depth <= 100 {
            let got = claimed(&stage.daemon).await;
            assert!(stage.daemon.say(saying(&got, "done", false), LIMIT).await.unwrap());
            assert_eq!(answer(&mut socket).await, "done");
        } else if depth >= 128 {
            assert_eq!(code(&mut socket).await, 1007);
            socket = open_admitted(&stage).await;
        } else if let Ok(got) = timeout(Duration::from_millis(200), stage.daemon.claimed()).await {
            assert!(stage.daemon.say(saying(&got, "done", false), LIMIT).await.unwrap());
            assert_eq!(answer(&mut socket).await, "done");
        } else {
            assert_eq!(code(&mut socket).await, 1007);
            socket = open_admitted(&stage).await;
        }
        stage.hold(&depth.to_string()).await;
        stage.serve(service.address).await;
    }
}

async fn open_admitted(stage: &Stage) -> Socket {
    let mut socket = open(stage).await;
    call(&mut socket, 0, "connect").await;
    answer(&mut socket).await;
    socket
}

#[tokio::test]
async fn a_call_without_an_id_of_its_own_is_refused() {
    let (service, heard) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    for text in [
        r#"{"method":"update.run"}"#,
        r#"{"id":null,"method":"update.run"}"#,
        r#"{"id":[1],"method":"update.run"}"#,
    ] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(code(&mut socket).await, 1007, "{text}");
        socket = open_admitted(&stage).await;
    }
    call(&mut socket, 1, "update.run").await;
    assert_eq!(claimed(&stage.daemon).await.call["id"], 1);
    call(&mut socket, 1, "update.run").await;
    assert_eq!(code(&mut socket).await, 1007, "one answer could not be told from the other");
    assert!(heard.lock().unwrap().iter().all(|call| !call.contains("update.")));
}

#[tokio::test]
async fn a_claimed_call_as_bytes_or_behind_another_method_does_not_reach_the_service() {
    let (service, heard) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    let text = r#"{"type":"req","id":1,"method":"update.run"}"#;
    socket.send(Message::binary(text.as_bytes())).await.unwrap();
    let got = claimed(&stage.daemon).await;
    assert_eq!(got.call["id"], 1);
    assert!(stage.daemon.say(saying(&got, "done", false), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "done");
    for (piece, is_last) in [(r#"{"id":2,"method":"health","#, false), (r#""method":"update.run"}"#, true)] {
        let code = if is_last { OpCode::Data(Data::Continue) } else { OpCode::Data(Data::Text) };
        socket.send(Message::Frame(Frame::message(piece.as_bytes().to_vec(), code, is_last))).await.unwrap();
        stage.stats().await;
    }
    assert_eq!(code(&mut socket).await, 1007);
    until("the service's side is closed", || service.open() == 0).await;
    assert_eq!(heard.lock().unwrap().len(), 1, "only the call that opened the session");
}

#[tokio::test]
async fn rights_are_taken_from_the_first_answer_and_never_again() {
    let (service, _) = gateway().await;
    let stage = Stage::new().await;
    let claim = Claim { scopes: "/payload/none".into(), ..claim() };
    stage.daemon.claim(Some(claim), LIMIT).await.unwrap();
    stage.serve(service.address).await;
    let mut socket = open(&stage).await;
    call(&mut socket, 7, "connect").await;
    answer(&mut socket).await;
    stage.daemon.claim(Some(self::claim()), LIMIT).await.unwrap();
    call(&mut socket, 7, "connect").await;
    answer(&mut socket).await;
    call(&mut socket, 8, "update.run").await;
    let got = claimed(&stage.daemon).await;
    assert_eq!((got.scopes.len(), got.protocol), (0, None));
}

#[tokio::test]
async fn a_client_whose_claimed_call_is_answered_without_a_service_is_told_to_come_back() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    call(&mut socket, 1, "update.status").await;
    let got = claimed(&stage.daemon).await;
    service.stop().await;
    // Nobody but the front knows that it is gone.
    call(&mut socket, 2, "health").await;
    assert_eq!(answer(&mut socket).await["error"]["code"], "UNAVAILABLE");
    assert!(stage.daemon.say(saying(&got, "idle", false), LIMIT).await.unwrap());
    assert_eq!(answer(&mut socket).await, "idle");
    assert_eq!(code(&mut socket).await, 1012);
}

#[tokio::test]
async fn what_the_daemon_says_stands_between_two_messages_of_the_service_and_never_inside_one() {
    let (service, _) = gateway().await;
    let (stage, mut socket, _) = admitted(&service).await;
    call(&mut socket, 1, "update.run").await;
    let got = claimed(&stage.daemon).await;
    call(&mut socket, 2, "flood").await;
    for number in 0..50 {
        let event = Say { answers: None, ..saying(&got, &format!("event {number}"), false) };
        assert!(stage.daemon.say(event, LIMIT).await.unwrap());
    }
    let (mut events, mut flooded) = (0, 0);
    while events < 50 || flooded < 2 {
        let text = text(&mut socket).await;
        if text.starts_with("\"event") {
            events += 1;
        } else {
            assert!(text.len() == 2_000_000 || text.contains("flooded"), "{} bytes", text.len());
            flooded += 1;
            assert!(flooded < 2 || events > 0, "they wait for the end of one message, not of all");
        }
    }
}
