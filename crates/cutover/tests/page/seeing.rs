//! What is seen at a glance, of a run while it goes on, and of one that is over.

use crate::pair::{PLUGIN, WITH_VERSION, app, extra, published};
use crate::stage::serving;
use crate::viewer::{House, PATIENT, Viewer, is_asked_for, rules};
use sample_gateway::Knobs;
use serde_json::json;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Notes what the act under way says of itself, whenever that changes.
const NOTE_PROGRESS: &str = "(() => {
  window.said = new Set();
  const note = () => said.add(document.querySelector('li.busy')?.innerText.replace(/\\s+/g, ' '));
  new MutationObserver(note).observe(document, { subtree: true, childList: true, characterData: true });
})()";

const NOTES: &str = "# Changelog

## [1.1.0] - 2026-02-01

### Added
- a <b onclick=alert(1)>second</b> thing <img src=x onerror=alert(1)>

## [1.0.0]
- how it began
";

/// Asks for a plan, and reads in it what the release says of itself: text, and of this version alone.
async fn is_planned_with_its_notes(viewer: &mut Viewer) -> anyhow::Result<()> {
    viewer.press("Update …").await?;
    viewer.press("Plan only").await?;
    viewer.reads("Past the cut").await?;
    viewer.sees("a plan with its notes", "document.querySelector('dialog details pre')").await?;
    viewer.tab.press("dialog summary").await?;
    viewer.reads("a <b onclick=alert(1)>second</b> thing <img src=x onerror=alert(1)>").await?;
    let (old, markup) =
        ("how it began", "document.querySelectorAll('main img, dialog img, b[onclick], [onerror]').length");
    assert!(!viewer.text_of("dialog").await?.contains(old), "those of other versions are no part of it");
    assert_eq!(viewer.tab.evaluate(markup).await?, json!(0));
    viewer.pictures("notes").await?;
    viewer.is_usable().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_and_its_plugins_are_seen_at_a_glance_with_age_notes_and_what_is_new() -> anyhow::Result<()>
{
    if !is_asked_for("a release is seen at a glance") {
        return Ok(());
    }
    if Command::new("npm").arg("--version").output().is_err() {
        println!("skipped: a release is seen at a glance: npm is not installed");
        return Ok(());
    }
    let (world, registry) = published(&rules("", &[])).await?;
    let house = House::of(world).await?;
    house.world.install("1.0.0").await?;
    let newer = app("1.1.0", WITH_VERSION).file("CHANGELOG.md", NOTES);
    let newer =
        newer.field("homepage", json!("https://app.example.com/")).published_at("2026-02-01T00:00:00.000Z");
    registry.publish(&newer);
    registry.tag("app", "latest", "1.1.0");
    registry.publish(&extra("1.1.0", "format"));
    registry.tag(PLUGIN, "latest", "1.1.0");
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.press("Look now").await?;
    let glance = "document.querySelector('dl.facts').innerText";
    let age = format!("/1\\.1\\.0, published \\d+ d.* ago, seen just now what it is/.test({glance})");
    viewer.sees("what is available and how old it is", &age).await?;
    let shown = viewer.text_of("dl.facts").await?;
    let process = serving(&house.world, "1.0.0").await?.process.unwrap();
    let pid = format!("pid {}, for", process.pid);
    for told in [
        "1.0.0 with @toy/extra 1.0.0",
        &pid,
        "0001",
        "proven, and looked at",
        "serves; 0 under way",
        "verified",
    ] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    assert!(!shown.contains("Release notes"), "nothing of it is here yet: {shown}");
    let link = "document.querySelector('dl.facts a')";
    let leads = viewer.tab.evaluate(&format!("[{link}.href, {link}.rel]")).await?;
    assert_eq!(leads, json!(["https://app.example.com/", "noreferrer"]));

    is_planned_with_its_notes(&mut viewer).await?;
    viewer.press("Update").await?;
    viewer
        .sees(
            "1.1.0",
            "document.querySelector('dl.facts')?.innerText.includes('1.1.0 with @toy/extra 1.1.0')",
        )
        .await?;
    assert_eq!(viewer.marked("verified").await?, "good");
    serving(&house.world, "1.1.0").await?;

    let kept = "document.querySelectorAll('#kept ~ .scroll tbody tr').length === 2";
    viewer.sees("both kept ones", kept).await?;
    viewer
        .sees(
            "its notes",
            "document.querySelector('#kept ~ .scroll details')?.innerText.includes('Release notes')",
        )
        .await?;
    viewer.press("Compare").await?;
    for told in ["From 0001 to 0002: ", "app: 1.0.0 → 1.1.0", "@toy/extra: 1.0.0 → 1.1.0"] {
        viewer.reads(told).await?;
    }
    viewer.pictures("compared").await?;
    viewer.is_usable().await?;
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_requests_that_wait_are_seen_while_it_goes_on_and_the_outage_is_drawn()
-> anyhow::Result<()> {
    if !is_asked_for("requests that wait are seen") {
        return Ok(());
    }
    let house = House::new(&rules("", &PATIENT), &[("1.0.0", Knobs::default())]).await?;
    house.publish_waiting("2.0.0")?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.tab.evaluate(NOTE_PROGRESS).await?;
    viewer.update("2.0.0").await?;
    house.world.until("the cut", |view| view.report.phase == "cutting over: prove").await?;
    let mut client = TcpStream::connect(house.world.address).await?;
    client.write_all(b"GET /version HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await?;
    let waits = "/Held now\\s+1 request; longest wait [\\d.]+ m?s/.exec(document.querySelector('#live ~ dl')?.innerText)?.[0]";
    viewer.sees("who waits, and how long", waits).await?;
    viewer.pictures("held").await?;
    house.let_it_boot()?;
    assert_eq!(viewer.marked("verified").await?, "good");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("2.0.0"), "{answer}");
    let said: Vec<String> = serde_json::from_value(viewer.tab.evaluate("[...said].map(String)").await?)?;
    let any = |one: &str, other: &str| said.iter().any(|said| said.contains(one) && said.contains(other));
    assert!(any("prove", "of at most") && any("prove", "of 3"), "{said:#?}");
    assert!(any("stage", "iB"), "what is copied and hashed is told in bytes: {said:#?}");

    viewer
        .tab
        .evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        .await?;
    let facts = viewer.text_of("[aria-label='Facts of the verdict']").await?;
    for told in
        ["Expected", "Observed", "When", "Source", "identity", "✓ holds", "GET /version", "– does not apply"]
    {
        assert!(facts.contains(told), "{told}: {facts}");
    }
    let report = serving(&house.world, "2.0.0").await?.report;
    // The picture's unit is a millisecond of the run.
    let drawn = viewer
        .tab
        .evaluate("[...document.querySelectorAll('.outage')].map((one) => one.width.baseVal.value)")
        .await?;
    let drawn: Vec<f64> = serde_json::from_value(drawn)?;
    let [gap] = drawn[..] else { panic!("one outage: {drawn:?}") };
    let measured = report.downtime_ms.unwrap();
    #[allow(clippy::cast_precision_loss, reason = "some seconds")]
    let differs = (gap - measured as f64).abs() / measured as f64;
    assert!(differs < 0.1, "drawn {gap} ms, measured {measured} ms");
    let label =
        viewer.tab.evaluate("document.querySelector('.timeline svg').getAttribute('aria-label')").await?;
    assert!(label.as_str().unwrap().contains("not served from "), "{label}");
    let row = viewer.text_of("#history ~ .scroll tbody tr").await?;
    assert!(row.contains("Update to 2.0.0") && row.contains("page"), "who asked: {row}");
    viewer.press_link("Update to 1.0.0").await?;
    viewer.reads("nobody was cut off").await?;
    assert_eq!(viewer.tab.evaluate("document.querySelectorAll('.outage').length").await?, json!(0));
    viewer.is_usable().await?;
    viewer.is_content();
    Ok(())
}
