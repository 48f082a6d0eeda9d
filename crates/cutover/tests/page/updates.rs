//! Runs that end well, and orders that do not fit any more.

use crate::stage::serving;
use crate::viewer::{House, PATIENT, is_asked_for, rules};
use sample_gateway::Knobs;
use serde_json::json;

/// Slow enough for a person to see it start.
fn slow() -> Knobs {
    Knobs { boot_delay_ms: 1500, ..Knobs::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_installation_and_an_update_are_followed_live_and_green_at_the_end_alone()
-> anyhow::Result<()> {
    if !is_asked_for("a good update is followed live") {
        return Ok(());
    }
    let house = House::new(&rules("", &PATIENT), &[("1.0.0", slow())]).await?;
    house.publish_waiting("2.0.0")?;
    house.world.name_latest("1.0.0")?;
    let mut viewer = house.visit().await?;
    assert_eq!(viewer.marked("nothing installed").await?, "idle");
    viewer.note_tones().await?;
    let told = viewer.order("Update", "Update").await?;
    assert!(told.contains("for the first time"), "{told}");
    assert_eq!(viewer.marked("verified").await?, "good");
    assert_eq!(viewer.tones().await?, ["idle", "busy", "good"]);
    viewer.is_content();

    let mut onlooker = house.visit().await?;
    onlooker.note_tones().await?;
    viewer.press("Update …").await?;
    viewer.tab.press("#version").await?;
    viewer.tab.enter("2.0.0").await?;
    viewer.press("Plan only").await?;
    viewer.reads("Past the cut").await?;
    viewer.pictures("update-planned").await?;
    viewer.is_usable().await?;
    viewer.press("Update").await?;
    viewer
        .sees("the proof", "/prove[^]*of at most/.test(document.querySelector('li.busy')?.innerText)")
        .await?;
    let pressable = "[...document.querySelectorAll('main button:not([aria-disabled]):not([aria-pressed])')].map((one) => one.innerText)";
    assert_eq!(
        viewer.tab.evaluate(pressable).await?,
        json!(["Compare"]),
        "past the cut nothing can be ordered"
    );
    viewer.pictures("update-live").await?;
    // A page that is loaded anew in the middle shows the same.
    viewer.reload().await?;
    viewer.sees("the run again", "document.querySelector('#live')?.innerText.includes('2.0.0')").await?;
    house.let_it_boot()?;
    assert_eq!(viewer.marked("verified").await?, "good");
    assert_eq!(onlooker.marked("verified").await?, "good");
    assert_eq!(onlooker.tones().await?, ["good", "busy", "good"], "a page that pressed nothing follows too");
    serving(&house.world, "2.0.0").await?;
    let history = "document.querySelectorAll('#history ~ .scroll tbody tr').length === 2";
    viewer.sees("both runs", history).await?;
    viewer
        .tab
        .evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        .await?;
    viewer.reads("listening on").await?;
    viewer.pictures("update-verified").await?;
    viewer.is_usable().await?;
    let run = viewer.tab.evaluate("document.querySelector('#history ~ .scroll tbody a').hash").await?;
    viewer.go(run.as_str().unwrap().trim_start_matches("#/")).await?;
    viewer.reads("package_updated_restart_verified").await?;
    viewer.pictures("run").await?;
    viewer.is_usable().await?;
    viewer.go_home().await?;
    viewer.sees("a green mark", "document.querySelector('.card.good')").await?;
    viewer.pictures("services").await?;
    viewer.is_usable().await?;
    viewer.is_content();
    onlooker.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_does_not_fit_any_more_is_refused_in_words_and_a_rollback_goes_back()
-> anyhow::Result<()> {
    if !is_asked_for("an order that does not fit is refused") {
        return Ok(());
    }
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|version| (version, Knobs::default()));
    let house = House::new(&rules("", &[]), &releases).await?;
    house.world.install("1.0.0").await?;
    let (mut one, mut two) = (house.visit().await?, house.visit().await?);
    // Somebody thinks about it, and meanwhile somebody else does something.
    one.press("Update …").await?;
    one.tab.press("#version").await?;
    one.tab.enter("3.0.0").await?;
    two.update("2.0.0").await?;
    two.marked("verified").await?;
    serving(&house.world, "2.0.0").await?;
    one.press("Update").await?;
    one.reads("the service moved on: it is at 2.0.0 now").await?;
    let focus =
        "document.activeElement.id === 'version' || document.activeElement.closest('dialog') !== null";
    assert_eq!(one.tab.evaluate(focus).await?, json!(true), "the focus stays in the dialog");
    one.pictures("refused").await?;
    one.is_usable().await?;
    one.tab.key("Escape").await?;
    one.sees("the dialog gone", "!document.querySelector('dialog')").await?;
    serving(&house.world, "2.0.0").await?;

    let told = one.order("Roll back", "Roll back").await?;
    assert!(told.contains("same proof as an update"), "{told}");
    one.sees("1.0.0 again", "document.querySelector('dl')?.innerText.includes('1.0.0')").await?;
    one.marked("verified").await?;
    serving(&house.world, "1.0.0").await?;
    // Any kept generation can be gone to, by keys alone.
    one.sees("the kept ones", "document.querySelectorAll('#kept ~ .scroll tbody tr').length === 2").await?;
    one.press("Compare").await?;
    one.reads("From 0002 to 0001").await?;
    one.reads("2.0.0 → 1.0.0").await?;
    let button = "[...document.querySelectorAll('button')].find((one) => one.innerText.includes('0002'))";
    one.tab.evaluate(&format!("{button}.focus()")).await?;
    one.tab.key("Enter").await?;
    one.sees("the dialog", "document.querySelector('dialog[open]')").await?;
    for _ in 0..20 {
        let at = one.tab.evaluate("document.activeElement.className").await?;
        if at == json!("main") {
            break;
        }
        one.tab.key("Tab").await?;
    }
    one.tab.key("Enter").await?;
    one.sees("2.0.0 again", "document.querySelector('dl')?.innerText.includes('2.0.0')").await?;
    one.marked("verified").await?;
    one.complains_of_answers_alone();
    two.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_stopped_started_and_restarted_and_what_is_seen_says_so() -> anyhow::Result<()> {
    if !is_asked_for("a service is stopped and started") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    let told = viewer.order("Stop", "Stop").await?;
    assert!(told.contains("until somebody starts it"), "{told}");
    assert_eq!(viewer.marked("stopped").await?, "idle");
    viewer.reads("stopped by its operator").await?;
    viewer.order("Start", "Start").await?;
    assert_eq!(viewer.marked("verified").await?, "good");
    let before = serving(&house.world, "1.0.0").await?.process.unwrap();
    viewer.order("Restart", "Restart").await?;
    let another = format!("!document.querySelector('dl').innerText.includes('pid {}')", before.pid);
    viewer.sees("another process", &another).await?;
    assert_eq!(viewer.marked("verified").await?, "good");
    viewer.is_content();
    Ok(())
}

/// Holds answers to plans back, and counts how often the kept ones were listed: they are after every plan.
const HOLD_PLANS: &str = "(() => {
  const real = window.fetch;
  Object.assign(window, { plans: [], listed: 0 });
  window.fetch = async (path, init) => {
    const answer = await real(path, init);
    if (path.endsWith('generations.list')) listed++;
    if (path.endsWith('update.plan')) await new Promise((go) => plans.push(go));
    return answer;
  };
})()";

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_shown_for_the_version_that_would_be_ordered_and_for_no_other() -> anyhow::Result<()> {
    if !is_asked_for("a plan is shown for the version that would be ordered") {
        return Ok(());
    }
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|version| (version, Knobs::default()));
    let house = House::new(&rules("", &[]), &releases).await?;
    house.world.name_latest("2.0.0")?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.sees("the kept one", "document.querySelector('#kept ~ .scroll tbody tr')").await?;
    viewer.tab.evaluate(HOLD_PLANS).await?;
    viewer.press("Update …").await?;
    viewer.press("Plan only").await?;
    viewer.sees("a plan", "plans.length === 1").await?;
    viewer.tab.press("#version").await?;
    viewer.tab.enter("3.0.0").await?;
    viewer.reads("Fetches and checks 3.0.0").await?;
    viewer.tab.evaluate("plans[0]()").await?;
    viewer.sees("its end", "listed === 1").await?;
    let told = viewer.text_of("dialog").await?;
    assert!(!told.contains("Past the cut") && !told.contains("2.0.0 (generation"), "{told}");

    // Two are on their way, and the one that was asked for last comes first.
    viewer.press("Plan only").await?;
    viewer.sees("a plan", "plans.length === 2").await?;
    viewer.tab.press("#version").await?;
    viewer.tab.enter("-none").await?;
    viewer.reads("Fetches and checks 3.0.0-none").await?;
    viewer.press("Plan only").await?;
    viewer.sees("another plan", "plans.length === 3").await?;
    viewer.tab.evaluate("plans[2]()").await?;
    viewer.reads("It would fail: ").await?;
    viewer.tab.evaluate("plans[1]()").await?;
    viewer.sees("its end", "listed === 3").await?;
    let told = viewer.text_of("dialog").await?;
    assert!(told.contains("It would fail: ") && !told.contains("Past the cut"), "{told}");
    viewer.complains_of_answers_alone();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_no_refusal_and_a_plan_that_is_not_made_no_failure()
-> anyhow::Result<()> {
    if !is_asked_for("an answer that does not come is no refusal") {
        return Ok(());
    }
    let house =
        House::new(&rules("", &[]), &["1.0.0", "2.0.0"].map(|version| (version, Knobs::default()))).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.press("Update …").await?;
    viewer.tab.press("#version").await?;
    viewer.tab.enter("2.0.0").await?;
    let cut = "window.real = fetch; window.fetch = (path, init) =>
      path.startsWith('/api/rpc/update.') ? Promise.reject(new TypeError('cut')) : real(path, init); void 0";
    viewer.tab.evaluate(cut).await?;
    viewer.press("Plan only").await?;
    viewer.reads("Not planned: The daemon did not answer.").await?;
    viewer.press("Update").await?;
    viewer.reads("Whether it took the order shows here as soon as it is heard again.").await?;
    let told = viewer.text_of("dialog").await?;
    assert!(!told.contains("Refused:") && !told.contains("It would fail:"), "{told}");
    viewer.pictures("unanswered").await?;
    viewer.is_usable().await?;
    viewer.tab.evaluate("window.fetch = real; void 0").await?;
    // Somebody else is faster: that says nothing about 2.0.0.
    let held = json!({ "service": "web", "version": "2.0.0", "hold": true });
    house.world.client().call("update.run", held).await?;
    viewer.reads("This does not fit any more").await?;
    viewer.press("Plan only").await?;
    viewer.reads("Not planned: run ").await?;
    assert!(!viewer.text_of("dialog").await?.contains("It would fail:"));
    viewer.complains_of_answers_alone();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_look_came_to_is_said_until_something_else_is_so() -> anyhow::Result<()> {
    if !is_asked_for("what a look came to is said until something else is so") {
        return Ok(());
    }
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|version| (version, Knobs::default()));
    let house = House::new(&rules("check_every = \"100h\"", &[]), &releases).await?;
    house.world.name_latest("1.0.0")?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    let nothing = "Nothing that an update would take.";
    let shows = |version: &str| {
        let glance = "document.querySelector('dl.facts')?.innerText";
        format!("{glance}.includes({}) && !{glance}.includes({})", json!(version), json!(nothing))
    };
    viewer.press("Look now").await?;
    viewer.reads(nothing).await?;
    // Somebody else looks.
    house.world.name_latest("2.0.0")?;
    house.world.client().call("versions.available", json!({ "service": "web" })).await?;
    viewer.sees("2.0.0 alone", &shows("2.0.0, published")).await?;
    house.world.name_latest("1.0.0")?;
    viewer.press("Look now").await?;
    viewer.sees("nothing again", &shows("nothing newer seen").replace("&& !", "|| ")).await?;
    // A run asks by itself, and so what was said before is over.
    viewer.update("3.0.0").await?;
    viewer.marked("verified").await?;
    viewer.sees("3.0.0", &shows("3.0.0")).await?;
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_the_end_of_a_run_is_not_shown_as_kept() -> anyhow::Result<()> {
    if !is_asked_for("what goes with a run is not shown as kept") {
        return Ok(());
    }
    let releases = ["1.0.0", "2.0.0", "3.0.0"].map(|version| (version, Knobs::default()));
    let house = House::new(&rules("", &[]), &releases).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    for version in ["2.0.0", "3.0.0"] {
        viewer.update(version).await?;
        viewer
            .sees(version, &format!("document.querySelector('dl')?.innerText.includes('{version}')"))
            .await?;
        viewer.marked("verified").await?;
    }
    let kept = "[...document.querySelectorAll('#kept ~ .scroll tbody th')].map((one) => one.innerText).join() === '0003,0002'";
    viewer.sees("the two that stay", kept).await?;
    viewer.is_content();
    Ok(())
}
