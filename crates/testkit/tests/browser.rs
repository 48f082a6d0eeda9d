//! The driven browser against a page of our own.
//!
//! `CUTOVER_TEST=page cargo test -p cutover-testkit --test browser`

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use cutover_testkit::browser::{self, Browser, Scheme};
use cutover_testkit::slow;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const PAGE: &str = r#"<title>A page</title><button id="go" onclick="setTimeout(() => { done.textContent = 'pressed'; }, 300)">Go</button>
<input id="name"><button id="off" disabled>Off</button><p id="done"></p><script>console.error("it is", "bad"); throw new Error("worse")</script>"#;

#[tokio::test]
async fn a_page_is_pressed_where_a_person_would_and_its_complaints_are_kept() {
    if !slow::is_one_asked_for(&["browser", "page"], "a browser is driven") {
        return;
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || Html(PAGE)));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let program = browser::installed().expect("no Chromium is on PATH");
    let driven = Browser::start(&program, LIMIT).await.unwrap();
    let mut tab = driven.open(&format!("http://{address}/"), LIMIT).await.unwrap();

    tab.until("the page", "document.readyState === 'complete' && document.title", LIMIT).await.unwrap();
    tab.press("#go").await.unwrap();
    tab.until("the press", "done.textContent", LIMIT).await.unwrap();
    assert!(tab.text().await.unwrap().contains("pressed"));
    let shown = tab.press("#off").await.unwrap_err().to_string();
    assert!(shown.contains("disabled"), "{shown}");
    let many = tab.press("button").await.unwrap_err().to_string();
    assert!(many.contains("there are 2"), "{many}");
    tab.until("nothing", "null", Duration::from_millis(1)).await.unwrap_err();
    let complaints = tab.complaints().join("\n");
    assert!(complaints.contains("console: it is bad") && complaints.contains("worse"), "{complaints}");

    let pictures = tempfile::tempdir().unwrap();
    let file = pictures.path().join("page.png");
    tab.picture(&file).await.unwrap();
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
    tab.whole_picture(&file).await.unwrap();
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));

    tab.show().await.unwrap();
    tab.press("#name").await.unwrap();
    tab.enter("a name").await.unwrap();
    assert_eq!(tab.evaluate("document.activeElement.value").await.unwrap(), "a name");
    tab.key("Tab").await.unwrap();
    assert_ne!(tab.evaluate("document.activeElement.id").await.unwrap(), "name");
    tab.key("F13").await.unwrap_err();
    tab.screen(390, 844, Scheme::Dark).await.unwrap();
    let seen = tab.evaluate("[screen.width, matchMedia('(prefers-color-scheme: dark)').matches]").await;
    assert_eq!(seen.unwrap(), serde_json::json!([390, true]));

    let profile = profiles();
    drop((tab, driven));
    assert!(profile.iter().all(|place| !Path::new(place).exists()), "a profile is left: {profile:?}");
    serving.abort();
}

/// The profiles that processes below this one were started with.
fn profiles() -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_child = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1) == Some(&own)
    };
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|pid| is_child(pid));
    let words = pids.flat_map(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).split('\0').map(str::to_owned).collect::<Vec<_>>()
    });
    let found: Vec<String> =
        words.filter_map(|word| word.strip_prefix("--user-data-dir=").map(str::to_owned)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found
}
