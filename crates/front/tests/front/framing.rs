//! Ambiguous framing is refused with 400 and the connection ends, whatever the parser behind it would make of it.

use crate::service::Service;
use crate::stage::Stage;

#[tokio::test]
async fn ambiguous_requests_are_refused_and_never_forwarded() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let cases = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\tX: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    ];
    for case in cases {
        let mut visitor = stage.visitor().await;
        visitor.send(case).await;
        assert_eq!(visitor.answer().await.status, 400, "{case:?}");
        assert!(visitor.is_closed().await, "{case:?}");
        // Bytes that come in two reads are judged alike.
        let mut visitor = stage.visitor().await;
        let (first, second) = case.split_at(case.len() / 2);
        visitor.send(first).await;
        tokio::task::yield_now().await;
        visitor.send(second).await;
        assert_eq!(visitor.answer().await.status, 400, "{case:?}");
    }
    assert_eq!(service.targets(), [""; 0], "none was forwarded");
}

#[tokio::test]
async fn a_smuggled_second_request_is_refused_after_the_first_is_answered() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor
        .send(
            "POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
             POST /evil HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    assert_eq!(visitor.answer().await.status, 200);
    assert_eq!(visitor.answer().await.status, 400);
    assert!(visitor.is_closed().await);
    assert_eq!(service.targets(), ["/good"]);
    assert_eq!(stage.stats().await.malformed_total, 1);
}

#[tokio::test]
async fn a_broken_chunk_cuts_the_request() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    for body in ["2\nhi\r\n0\r\n\r\n", "2\r\nhiXX0\r\n\r\n", "zz\r\n", "2;a=b\nhi\r\n0\r\n\r\n"] {
        let mut visitor = stage.visitor().await;
        visitor.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
        while !visitor.is_closed().await {}
        assert!(!visitor.buffer.starts_with(b"HTTP/1.1 200"), "{body:?}");
    }
    assert_eq!(service.targets(), [""; 0], "the service never saw a whole request");
}

#[tokio::test]
async fn ordinary_requests_with_bodies_of_all_kinds_pass_on_one_connection() {
    let stage = Stage::new().await;
    let service = Service::named("v1").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    visitor.send("\r\n").await;
    for _ in 0..3 {
        visitor.post("/sized", "a\nb\rc\r\n\r\nGET /inside HTTP/1.1\r\n\n").await;
        assert_eq!(visitor.answer().await.status, 200);
        visitor
            .send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\na\nb\rc\r\n0\r\nT: 1\r\n\r\n")
            .await;
        assert_eq!(visitor.answer().await.status, 200);
        visitor.post("/empty", "").await;
        assert_eq!(visitor.answer().await.status, 200);
        assert_eq!(visitor.get("/get").await.status, 200);
    }
    assert_eq!(service.targets().len(), 12);
}
