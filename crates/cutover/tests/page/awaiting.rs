//! A run that waits before anything is stopped: seen, approved, held and given up on the page.

use crate::stage::serving;
use crate::viewer::{House, Viewer, is_asked_for, rules};
use anyhow::Context;
use sample_gateway::Knobs;
use serde_json::json;

async fn house() -> anyhow::Result<House> {
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|version| (version, Knobs::default()));
    let house = House::new(&rules("", &[]), &releases).await?;
    house.world.name_latest("1.0.0")?;
    let notes = "## [2.0.0]\n- faster\n";
    std::fs::write(house.world.releases().join("2.0.0/CHANGELOG.md"), notes)?;
    Ok(house)
}

/// The command that approves, as the page shows it.
async fn shown(viewer: &mut Viewer) -> anyhow::Result<String> {
    let command =
        "[...document.querySelectorAll('#live ~ .banner copy-line code')].map((one) => one.innerText)
        .find((command) => command.includes(' approve '))";
    let shown = viewer.sees("the command that approves", command).await?;
    shown.as_str().map(str::to_owned).context("no text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_held_and_approved_and_one_whose_plan_is_another_is_refused_in_words() -> anyhow::Result<()>
{
    if !is_asked_for("a run is held and approved") {
        return Ok(());
    }
    let house = house().await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    let ask = async |viewer: &mut Viewer, version: &str| -> anyhow::Result<()> {
        viewer.press("Update …").await?;
        viewer.tab.press("#version").await?;
        viewer.tab.enter(version).await?;
        viewer.tab.press("dialog [type=checkbox]").await?;
        viewer.reads("Before anything is stopped it waits for an approval.").await?;
        viewer.press("Update").await
    };
    ask(&mut viewer, "2.0.0").await?;
    assert_eq!(viewer.marked("waits for approval").await?, "busy", "waiting is not green");
    viewer.reads("2.0.0 is prepared and waits for an approval; 1.0.0 is not touched meanwhile.").await?;
    let first = shown(&mut viewer).await?;
    viewer.sees("what is new in it", "document.querySelector('#live ~ details summary')").await?;
    viewer.tab.press("#live ~ details summary").await?;
    viewer
        .sees("its notes", "document.querySelector('#live ~ details')?.innerText.includes('- faster')")
        .await?;
    viewer.pictures("awaiting").await?;
    viewer.is_usable().await?;

    // Somebody reads what it leads to, and meanwhile somebody else prepares something else.
    viewer.press("Approve …").await?;
    viewer
        .sees(
            "the consequences",
            "document.querySelector('dialog[open] ul')?.innerText.includes('once more')",
        )
        .await?;
    viewer.pictures("approve").await?;
    let mut other = house.visit().await?;
    let told = other.order("Cancel the run", "Cancel the run").await?;
    assert!(told.contains("nothing was changed"), "{told}");
    other.marked("cancelled").await?;
    viewer.reads("This does not fit any more: the service has moved on.").await?;
    ask(&mut other, "3.0.0").await?;
    other.marked("waits for approval").await?;
    assert_ne!(shown(&mut other).await?, first);
    viewer.press("Approve").await?;
    viewer.reads("that is not what is prepared now").await?;
    serving(&house.world, "1.0.0").await?;
    viewer.press("Close").await?;

    let told = viewer.order("Approve", "Approve").await?;
    assert!(told.contains("Looks at 3.0.0 once more") && told.contains("1.0.0 (pid"), "{told}");
    assert_eq!(viewer.marked("verified").await?, "good");
    serving(&house.world, "3.0.0").await?;
    viewer.complains_of_answers_alone();
    other.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_window_is_told_with_its_hours_and_the_run_can_be_held_and_given_up() -> anyhow::Result<()> {
    if !is_asked_for("a closed window is told") {
        return Ok(());
    }
    // Two hours from now, for an hour.
    let from = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).strftime("%H:%M").to_string();
    let to = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3)).strftime("%H:%M").to_string();
    let windows = format!("[{{ from = \"{from}\", to = \"{to}\", zone = \"UTC\" }}]");
    let mut house = house().await?;
    house.world.install("1.0.0").await?;
    house.world.kill_daemon()?;
    crate::stage::configure(&house.world, "policy = {", &format!("policy = {{ windows = {windows},"))?;
    house.world.start_daemon().await?;
    let mut viewer = house.visit().await?;
    viewer.update("2.0.0").await?;
    assert_eq!(viewer.marked("waits for its window").await?, "busy");
    viewer.reads(&format!("outside of {from}-{to} UTC: not before")).await?;
    viewer.pictures("window").await?;
    viewer.is_usable().await?;
    let told = viewer.order("Hold the run", "Hold the run").await?;
    assert!(told.contains("1.0.0 (pid"), "{told}");
    viewer.marked("waits for approval").await?;
    viewer.order("Cancel the run", "Cancel the run").await?;
    assert_eq!(viewer.marked("cancelled").await?, "warn");
    viewer.go_home().await?;
    let banner =
        "document.querySelector('.banner.warn')?.innerText.includes('was cancelled before the switch')";
    assert_eq!(viewer.sees("the banner", banner).await?, json!(true));
    serving(&house.world, "1.0.0").await?;
    viewer.is_content();
    Ok(())
}
