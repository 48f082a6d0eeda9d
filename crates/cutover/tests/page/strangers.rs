//! Another site in the browser of somebody who is logged in.

use crate::viewer::{House, LOOK, is_asked_for, rules};
use sample_gateway::Knobs;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What is tried from there, and what comes of it: an error, or what a browser lets a page know.
const TRIES: &str = "(async () => {
  const of = async (deed) => { try { return await deed(); } catch (error) { return error.name; } };
  const order = { method: 'POST', credentials: 'include', body: '{}' };
  const read = of(async () => (await fetch('DAEMON/api/services', { credentials: 'include' })).type);
  const stop = of(async () => (await fetch('DAEMON/api/rpc/service.stop', { ...order, mode: 'cors' })).type);
  const blind = of(async () => (await fetch('DAEMON/api/rpc/service.stop', { ...order, mode: 'no-cors' })).type);
  const keyed = of(async () => (await fetch('DAEMON/api/rpc/service.stop', { ...order, headers: { 'x-cutover-key': 'guess' } })).type);
  const socket = new Promise((done) => {
    const socket = new WebSocket('DAEMON/ws'.replace('http', 'ws'));
    socket.onopen = () => done('open');
    socket.onerror = () => done('refused');
  });
  const script = new Promise((done) => {
    const script = Object.assign(document.createElement('script'), { src: 'DAEMON/page/app.js', type: 'module' });
    script.onload = () => done('run');
    script.onerror = () => done('refused');
    document.head.append(script);
  });
  return Promise.all([read, stop, blind, keyed, socket, script]);
})()";

/// A site of somebody else, and the heads of all requests that it got.
async fn site() -> anyhow::Result<(SocketAddr, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, heads) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut head, mut part) = (Vec::new(), [0; 4096]);
            while let Ok(read @ 1..) = stream.read(&mut part).await {
                head.extend(&part[..read]);
                if head.windows(4).any(|end| end == b"\r\n\r\n") {
                    break;
                }
            }
            kept.lock().unwrap().push(String::from_utf8_lossy(&head).to_lowercase());
            let page = "<!doctype html><title>elsewhere</title><link rel=icon href=data:,><p>elsewhere</p>";
            let length = page.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{page}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((address, heads))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_in_the_same_browser_reads_nothing_and_orders_nothing() -> anyhow::Result<()> {
    if !is_asked_for("another site orders nothing") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    let process = house.world.until("a process", |view| view.process.is_some()).await?.process;
    let (elsewhere, heads) = site().await?;
    // The same host, so that the browser would send the cookie with it.
    let mut other = house.tab(&format!("http://{elsewhere}/")).await?;
    other.reads("elsewhere").await?;
    let came = other.tab.evaluate(&TRIES.replace("DAEMON", &format!("http://{}", house.address))).await?;
    // Not even that something was answered, where a page may ask without reading.
    assert_eq!(came, json!(["TypeError", "TypeError", "TypeError", "TypeError", "refused", "refused"]));
    let view = house.world.until("an answer", |_| true).await?;
    assert_eq!(
        (view.process, view.report.serving.posture.as_str()),
        (process, "serve"),
        "nothing was ordered"
    );
    viewer.marked("verified").await?;
    viewer.is_content();

    // Whoever goes there from the page takes nothing along.
    let opened = house.opened().await?;
    let mut leaving = house.tab(&opened).await?;
    leaving.sees("the services", "document.querySelector('.card')").await?;
    heads.lock().unwrap().clear();
    leaving.tab.evaluate(&format!("void (location.href = 'http://{elsewhere}/gone')")).await?;
    leaving.tab.until("elsewhere", "document.title === 'elsewhere'", LOOK).await?;
    assert_eq!(leaving.tab.evaluate("document.referrer").await?, json!(""));
    let heads = heads.lock().unwrap().join("\n");
    let (_, token) = opened.split_once("#token=").unwrap();
    assert!(heads.contains("get /gone") && !heads.contains("referer:"), "{heads}");
    assert!(!heads.contains(&token.to_lowercase()), "{heads}");
    Ok(())
}
