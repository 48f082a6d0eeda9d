//! What passes through, what is sent again, and how a cut answer ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use cutover_front::{Forwarded, Posture, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::service::{Service, answer, hear_out};
use crate::stage::{Stage, patience, until};
use crate::visitor::LIMIT;

#[tokio::test]
async fn host_and_origin_pass_unchanged_and_hop_by_hop_headers_stay() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor
        .send(
            "GET /a?b=c%20d HTTP/1.1\r\nHost: gw.example.com:1\r\nOrigin: http://gw.example.com:1\r\n\
             Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nCookie: a=b\r\n\r\n",
        )
        .await;
    assert_eq!(visitor.answer().await.status, 200);
    let asked = &service.asked()[0];
    assert_eq!(asked.target, "/a?b=c%20d");
    assert_eq!(asked.header("host"), Some("gw.example.com:1"));
    assert_eq!(asked.header("origin"), Some("http://gw.example.com:1"));
    assert_eq!(asked.header("cookie"), Some("a=b"));
    for absent in ["x-hop", "keep-alive", "connection", "x-forwarded-for", "x-real-ip", "forwarded", "via"] {
        assert_eq!(asked.header(absent), None, "{absent}");
    }
}

/// Lines of a head in lower-case names and exact values, sorted by name; several of one name keep their order.
fn fields(head: &str) -> Vec<(String, String)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut fields: Vec<(String, String)> = lines
        .map(|(name, value)| (name.to_lowercase(), value.strip_prefix(' ').unwrap_or(value).to_owned()))
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

#[tokio::test]
async fn a_client_on_this_machine_could_as_well_have_asked_the_service_itself() {
    let body = "{\"a\": \u{e4}}\n";
    let head = format!(
        "POST /a//b/%2e%2E/c?q=%41+1&q=2&&x=%C3%A4 HTTP/1.1\r\nHost: localhost:18789\r\n\
         Origin: http://localhost:18789\r\nUser-Agent:  two  blanks \r\nCookie: a=\"b c\"; d=e\r\n\
         X-Twice: second\r\nX-Twice: first\r\nX-Empty:\r\nAuthorization: Bearer AbC.dEf==\r\n\
         Accept: text/html;q=0.9, */*\r\nAccept-Encoding: gzip, br\r\nRange: bytes=0-\r\nVia: 1.0 theirs\r\n\
         X-Latin: \u{e4}\u{f6}\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.send(&head).await;
    visitor.send(body).await;
    assert_eq!(visitor.answer().await.status, 200);
    // The same words, said to the service itself.
    let mut direct = crate::visitor::Visitor::to(service.address).await;
    direct.send(&head).await;
    direct.send(body).await;
    assert_eq!(direct.answer().await.status, 200);
    let [proxied, direct] = &service.asked()[..] else { panic!("two requests") };
    assert_eq!((&proxied.method, &proxied.target), (&direct.method, &direct.target));
    assert_eq!(proxied.body, direct.body);
    let trimmed = |(name, value): (String, String)| (name, value.trim().to_owned());
    let direct: Vec<_> = fields(&direct.head).into_iter().map(trimmed).collect();
    let proxied: Vec<_> = fields(&proxied.head).into_iter().map(trimmed).collect();
    assert_eq!(proxied, direct);
}

#[tokio::test]
async fn the_client_is_named_where_the_upstream_is_to_learn_it() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    let upstream = Upstream { forwarded: Forwarded::XForwarded, ..Upstream::at(service.address) };
    let posture = Posture::Serve { upstream, patience: patience(LIMIT) };
    stage.daemon.set_posture(posture, LIMIT).await.unwrap();
    stage.visitor().await.get("/").await;
    let asked = &service.asked()[0];
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-host"), Some("web"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    for _ in 0..50 {
        assert_eq!(visitor.get("/").await.status, 200);
    }
    assert_eq!(service.accepted(), 1);
}

#[tokio::test]
async fn bodies_stream_both_ways_before_they_end() {
    let stage = Stage::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.serve(listener.local_addr().unwrap()).await;
    let mut visitor = stage.visitor().await;
    visitor.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"one\r\n") {
        assert!(upstream.read_buf(&mut seen).await.unwrap() > 0);
    }
    upstream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await.unwrap();
    assert_eq!(visitor.head().await.status, 200);
    assert_eq!(visitor.chunk().await.as_deref(), Some("uno"));
    visitor.send("3\r\ntwo\r\n0\r\n\r\n").await;
    while !seen.ends_with(b"0\r\n\r\n") {
        assert!(upstream.read_buf(&mut seen).await.unwrap() > 0);
    }
    assert!(seen.windows(3).any(|window| window == b"two"));
    upstream.write_all(b"3\r\ndos\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(visitor.chunk().await.as_deref(), Some("dos"));
    assert_eq!(visitor.chunk().await.as_deref(), Some(""));
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one_and_end_cleanly_when_cut() {
    let stage = Stage::new().await;
    let next = Arc::new(Notify::new());
    let service = Service::start({
        let next = next.clone();
        move |_, mut stream| {
            let next = next.clone();
            async move {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
                    .await
                    .ok()?;
                for number in 0..3 {
                    stream.write_all(format!("data: {number}\n\n").as_bytes()).await.ok()?;
                    next.notified().await;
                }
                // Dies without having ended: what it sent has no length.
                rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).ok()?;
                None
            }
        }
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/events").await;
    assert_eq!(visitor.head().await.status, 200);
    for number in 0..3 {
        assert_eq!(visitor.chunk().await.as_deref(), Some(format!("data: {number}\n\n").as_str()));
        next.notify_one();
    }
    assert_eq!(visitor.chunk().await.as_deref(), Some(""), "the last chunk: a clean end");
    assert_eq!(stage.stats().await.cut, 1);
}

#[tokio::test]
async fn any_other_answer_that_is_cut_breaks_off_without_its_last_chunk() {
    let stage = Stage::new().await;
    let service = Service::start(|asked, mut stream| async move {
        let head: &[u8] = if asked.target == "/chunked" {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"
        };
        stream.write_all(head).await.ok()?;
        None
    })
    .await;
    stage.serve(service.address).await;
    for (number, target) in ["/chunked", "/sized"].into_iter().enumerate() {
        let answer = stage.visitor().await.get(target).await;
        assert_eq!((answer.status, answer.body.as_str(), answer.is_whole), (200, "part", false), "{target}");
        assert_eq!(stage.stats().await.cut, number as u64 + 1);
    }
}

#[tokio::test]
async fn a_get_without_an_answer_is_sent_again_and_a_post_is_not() {
    let stage = Stage::new().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let service = Service::start({
        let seen = seen.clone();
        move |asked, stream| {
            let first = seen.fetch_add(1, SeqCst) == 0;
            async move { if first { None } else { answer(stream, asked.method).await } }
        }
    })
    .await;
    stage.serve(service.address).await;
    assert_eq!(stage.visitor().await.get("/").await.body, "GET");
    assert_eq!(seen.load(SeqCst), 2);
    let stats = stage.stats().await;
    assert_eq!((stats.replayed_total, stats.cut), (1, 0));

    seen.store(0, SeqCst);
    let mut visitor = stage.visitor().await;
    visitor.post("/", "once").await;
    assert_eq!(visitor.answer().await.status, 502);
    let with_body = "GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi";
    seen.store(0, SeqCst);
    visitor.send(with_body).await;
    assert_eq!(visitor.answer().await.status, 502, "a GET with a body is not sent again either");
    assert_eq!(seen.load(SeqCst), 1);
    let stats = stage.stats().await;
    assert_eq!((stats.replayed_total, stats.cut), (1, 2));
}

#[tokio::test]
async fn a_get_that_kills_its_service_each_time_is_given_up() {
    let stage = Stage::new().await;
    let service = Service::start(|_, _| async { None }).await;
    stage.serve(service.address).await;
    assert_eq!(stage.visitor().await.get("/").await.status, 502);
    assert_eq!(service.asked().len(), 3);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let stage = Stage::new().await;
    let service = Service::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.ok()?;
        None
    })
    .await;
    stage.serve(service.address).await;
    assert!(!stage.visitor().await.get("/").await.is_whole);
    assert_eq!(service.asked().len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_from_the_service() {
    let stage = Stage::new().await;
    let service = Service::start(|_, stream| hear_out(stream)).await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/").await;
    until("asked", || service.asked().len() == 1).await;
    drop(visitor);
    stage.until("let go", |stats| stats.in_flight == 0 && stats.connections == 0).await;
}

#[tokio::test]
async fn heads_of_all_kinds_keep_their_length_and_have_no_body() {
    let stage = Stage::new().await;
    let service = Service::start(|asked, mut stream| async move {
        let reply: &[u8] = match asked.target.as_str() {
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        };
        stream.write_all(reply).await.ok()?;
        Some(stream)
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.send("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    assert_eq!(visitor.head().await.header("content-length"), Some("1234"));
    assert_eq!(visitor.get("/204").await.status, 204);
    assert_eq!(visitor.get("/304").await.header("etag"), Some("\"x\""));
}

#[tokio::test]
async fn an_old_client_is_served_too() {
    let stage = Stage::new().await;
    let service = Service::start(|_, mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await
            .ok()?;
        Some(stream)
    })
    .await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.send("GET / HTTP/1.0\r\nHost: web\r\n\r\n").await;
    let answer = visitor.head().await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    while visitor.fill().await > 0 {}
    assert_eq!(visitor.buffer, b"hi");
}

#[tokio::test]
async fn the_target_stands_above_the_host_header() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.send("GET http://real.example/x HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 200);
    let asked = &service.asked()[0];
    assert_eq!((asked.target.as_str(), asked.header("host")), ("/x", Some("real.example")));
}
