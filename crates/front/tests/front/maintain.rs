//! Declared maintenance: what people and programs are told.

use cutover_front::Posture;

use crate::service::Service;
use crate::stage::{Stage, notice};
use crate::visitor::LIMIT;

async fn maintain(stage: &Stage) {
    let posture = Posture::Maintain { notice: notice(), upstream: None };
    stage.daemon.set_posture(posture, LIMIT).await.unwrap();
}

#[tokio::test]
async fn m8_in_maintenance_requests_get_503_with_what_happened_and_what_to_type() {
    let stage = Stage::new().await;
    let service = Service::named("old tree").await;
    stage.serve(service.address).await;
    let mut visitor = stage.visitor().await;
    assert_eq!(visitor.get("/").await.status, 200);
    maintain(&stage).await;
    let answer = visitor.get("/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let object: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(object["sentence"], notice().sentence);
    assert_eq!(object["commands"][0], "cutover recover web --retry");
    assert_eq!(object["runId"], "run-1");
    visitor.send("GET / HTTP/1.1\r\nHost: web\r\nAccept: text/html,application/xhtml+xml\r\n\r\n").await;
    let page = visitor.answer().await;
    assert_eq!(page.status, 503);
    assert!(page.body.contains("<code>cutover recover web --retry</code>"), "{}", page.body);
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    visitor.send("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n").await;
    assert!(!visitor.answer().await.body.contains("recover"), "another proxy stands between");
    assert_eq!(service.targets().len(), 1);
    assert_eq!(stage.stats().await.refused_5xx, 3);
}

#[tokio::test]
async fn maintenance_ends_the_waiting_and_a_new_service_ends_maintenance() {
    let stage = Stage::new().await;
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/").await;
    stage.until("held", |stats| stats.held == 1).await;
    maintain(&stage).await;
    assert_eq!(visitor.answer().await.status, 503);
    visitor
        .send(
            "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(visitor.answer().await.status, 503, "a new WebSocket is not opened");
    let service = Service::named("v2").await;
    stage.serve(service.address).await;
    assert_eq!(stage.visitor().await.get("/").await.body, "v2");
}

#[tokio::test]
async fn a_large_upload_reads_its_503_before_the_connection_ends() {
    let stage = Stage::new().await;
    maintain(&stage).await;
    let mut visitor = stage.visitor().await;
    let body = "x".repeat(20_000_000);
    visitor.post("/upload", &body).await;
    assert_eq!(visitor.answer().await.status, 503);
}
