//! What a person takes upon himself: another try, a process whose proof is incomplete, a switch that waits for its start.

use crate::failures::{M10, never_looked_complete};
use crate::stage::{serving, signal};
use crate::viewer::{House, is_asked_for, rules};
use cutover_core::Resolution;
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn m10_what_is_tried_again_and_accepted_at_last_serves_and_is_never_green() -> anyhow::Result<()> {
    if !is_asked_for("what is accepted is never green") {
        return Ok(());
    }
    let liar = Knobs { report_version: Some("9.9.9".into()), ..Knobs::default() };
    let service = rules("", &[("rollback", "\"never\""), ("start_deadline", "\"3s\"")]);
    let house = House::new(&service, &[("1.0.0", Knobs::default()), ("2.0.0", liar)]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.note_tones().await?;
    viewer.update("2.0.0").await?;
    assert_eq!(viewer.marked("maintenance").await?, "bad");
    viewer.reads("until resolved").await?;

    let told = viewer.order("Try again", "Try again").await?;
    assert!(told.contains("Tries 2.0.0 once more, with the same proof"), "{told}");
    let runs =
        |number: u32| format!("document.querySelectorAll('#history ~ .scroll tbody tr').length === {number}");
    viewer.sees("the second try", &runs(3)).await?;
    assert_eq!(viewer.marked("maintenance").await?, "bad");
    viewer.reads(M10).await?;

    let told = viewer.order("Accept as it is", "Accept as it is").await?;
    assert!(told.contains("lets clients reach it even if its proof stays incomplete"), "{told}");
    assert!(told.contains("It is never shown as verified"), "{told}");
    assert_eq!(viewer.marked("serving; accepted, unverified").await?, "warn");
    let banner = viewer.text_of(".banner.warn").await?;
    assert!(banner.contains("2.0.0 was accepted by a person; its proof is incomplete."), "{banner}");
    viewer.reads("accepted by a person, not proven").await?;
    let report = serving(&house.world, "2.0.0").await?.report;
    let typed = crate::stage::told(&house.world.cutover(&["status"]).await?);
    assert!(typed.contains("which a person accepted: its proof is incomplete"), "{typed}");
    assert_eq!((report.ok, report.resolution), (false, Resolution::AcceptedUnverified));
    viewer.pictures("accepted").await?;
    viewer.is_usable().await?;
    never_looked_complete(&mut viewer).await?;
    // It stays so, on both pages and however often they are loaded.
    viewer.reload().await?;
    viewer.reads("its proof is incomplete").await?;
    viewer.go_home().await?;
    viewer.sees("an amber card", "document.querySelector('.card.warn')").await?;
    assert_eq!(viewer.tab.evaluate("document.querySelectorAll('.good').length").await?, json!(0));
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_is_switched_and_the_switch_is_taken_back_or_started_and_proven()
-> anyhow::Result<()> {
    if !is_asked_for("a switch waits for its start") {
        return Ok(());
    }
    let house =
        House::new(&rules("", &[]), &["1.0.0", "2.0.0"].map(|version| (version, Knobs::default()))).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.order("Stop", "Stop").await?;
    viewer.marked("stopped").await?;
    viewer.note_tones().await?;
    let told = viewer.update("2.0.0").await?;
    assert!(told.contains("it is switched, and “Start” proves it later"), "{told}");
    assert_eq!(viewer.marked("waits for start").await?, "idle");
    viewer.reads("2.0.0 is switched; the service is kept stopped and `start` proves it.").await?;
    viewer.reads("nobody was cut off").await?;
    viewer.pictures("parked").await?;
    let told = viewer.order("Cancel the run", "Cancel the run").await?;
    assert!(told.contains("Takes the switch to 2.0.0 back"), "{told}");
    let sentence =
        "Update to 2.0.0 was cancelled after the switch; 1.0.0 is installed again and was not started.";
    let banner = format!("document.querySelector('.banner.bad')?.innerText.includes({})", json!(sentence));
    viewer.sees("what became of it", &banner).await?;
    let report = house.world.until("the end", |view| view.report.ended.is_some()).await?.report;
    assert_eq!(report.resolution, Resolution::OldUnverified);
    let tones = viewer.tones().await?;
    assert!(!tones.contains(&"good".to_owned()), "{tones:?}");

    viewer.update("2.0.0").await?;
    viewer.marked("waits for start").await?;
    let told = viewer.order("Start", "Start").await?;
    assert!(told.contains("Starts the switched 2.0.0"), "{told}");
    assert_eq!(viewer.marked("verified").await?, "good");
    serving(&house.world, "2.0.0").await?;
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ended_for_good_is_said_to_be_started_by_an_update_and_is() -> anyhow::Result<()> {
    if !is_asked_for("what ended for good is started by an update") {
        return Ok(());
    }
    let ends = Knobs { exit_code: Some(78), ..Knobs::default() };
    let service = rules("", &[("watch", "\"10ms\""), ("restart_prevent_exit_status", "[78]")]);
    let house = House::new(&service, &[("1.0.0", ends), ("2.0.0", Knobs::default())]).await?;
    house.world.install("1.0.0").await?;
    house.world.until("the end of the watch", |view| view.report.standing == "idle").await?;
    let process = serving(&house.world, "1.0.0").await?.process.unwrap();
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    signal(process.pid, Signal::TERM)?;
    viewer.reads("it ended with exit code 78").await?;
    let told = viewer.update("2.0.0").await?;
    for said in
        ["and starts 1.0.0 again meanwhile", "Then 1.0.0 is stopped, and the new version started and proven"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert!(!told.contains("stays so"), "{told}");
    assert_eq!(viewer.marked("verified").await?, "good");
    serving(&house.world, "2.0.0").await?;
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_about_a_run_is_not_given_to_the_next_one() -> anyhow::Result<()> {
    if !is_asked_for("an order about a run is not given to the next") {
        return Ok(());
    }
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|version| (version, Knobs::default()));
    let house = House::new(&rules("", &[]), &releases).await?;
    house.world.install("1.0.0").await?;
    let client = house.world.client();
    let held = async |version: &str| -> anyhow::Result<Value> {
        let params = json!({ "service": "web", "version": version, "hold": true });
        let run = client.call("update.run", params).await?["runId"].clone();
        house.world.until("the wait", |view| view.report.awaits_a_person()).await?;
        Ok(run)
    };
    let first = held("2.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.press("Cancel the run …").await?;
    viewer.reads("Gives up the run to 2.0.0").await?;
    client.call("update.cancel", json!({ "service": "web", "expected": { "run": first } })).await?;
    let second = held("3.0.0").await?;
    // Both have the same version before them.
    viewer.sees("the next run", "document.querySelector('#live')?.innerText.includes('3.0.0')").await?;
    viewer.reads("This does not fit any more: the service has moved on.").await?;
    let main = "document.querySelector('dialog button.main')";
    assert_eq!(viewer.tab.evaluate(&format!("{main}.getAttribute('aria-disabled')")).await?, json!("true"));
    viewer.tab.evaluate(&format!("{main}.form.requestSubmit()")).await?;
    // Whoever has not seen it yet is refused by the daemon.
    let late = client.call("update.cancel", json!({ "service": "web", "expected": { "run": first } })).await;
    assert!(late.is_err(), "{late:?}");
    viewer.press("Do nothing").await?;
    let view = house.world.until("an answer", |_| true).await?;
    assert_eq!(json!(view.report.run_id), second, "{:?}", view.report);
    assert!(view.report.ended.is_none(), "{:?}", view.report);
    let told = viewer.order("Cancel the run", "Cancel the run").await?;
    assert!(told.contains("Gives up the run to 3.0.0"), "{told}");
    viewer.marked("cancelled").await?;
    viewer.is_content();
    Ok(())
}
