//! Runs that do not end well, and a page that cannot look complete when they do not.

use crate::stage::{serving, signal};
use crate::viewer::{House, Viewer, is_asked_for, rules};
use cutover_core::Resolution;
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::json;

pub(crate) const M10: &str = "package updated but restart failed; manual restart required";

/// After the first good run there is no green until another one is verified.
pub(crate) async fn never_looked_complete(viewer: &mut Viewer) -> anyhow::Result<()> {
    let tones = viewer.tones().await?;
    let after = tones.iter().skip_while(|tone| *tone == "good");
    assert!(tones.len() > 1 && after.clone().all(|tone| tone != "good"), "{tones:?}");
    Ok(())
}

/// Every ending that a report could tell, laid over an element of its own by the page's own functions.
const ENDINGS: &str = "(async () => {
  const load = (name) => import(`/page/${name}.js`);
  const [{ lay }, { servicePage }] = await Promise.all(['dom', 'service'].map(load));
  const headers = { 'x-cutover-key': localStorage.getItem('cutover-key') };
  const { services: [view] } = await (await fetch('/api/services', { headers })).json();
  const maps = ['looks', 'logs', 'runs', 'generations', 'differences'].map((name) => [name, new Map()]);
  const model = { link: { live: true }, now: Date.now(), ...Object.fromEntries(maps) };
  const told = [];
  for (const status of [null, 'package_update_failed', 'package_updated_restart_scheduled', 'package_updated_restart_failed', VERIFIED])
    for (const resolution of ['none', 'old_verified', 'old_unverified', 'accepted_unverified', 'maintenance'])
      for (const revertedBy of [null, 'another']) {
        const report = { ...view.report, status, resolution, revertedBy, ok: status === VERIFIED, sentence: SENTENCE };
        model.views = new Map([['web', { ...view, report }]]);
        const root = document.createElement('div');
        lay(root, [servicePage(model, 'web', {})]);
        const [mark, banner] = ['h1 .chip', 'section.banner'].map((of) => root.querySelector(of));
        told.push({
          status: String(status), resolution, isReverted: revertedBy !== null, isGreen: root.querySelector('.good') !== null,
          mark: mark.innerText, tone: banner?.className ?? '', role: banner?.getAttribute('role'), text: banner?.querySelector('.headline').innerText,
        });
      }
  return told;
})()";

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    status: String,
    resolution: String,
    is_reverted: bool,
    is_green: bool,
    mark: String,
    tone: String,
    role: Option<String>,
    text: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_of_all_endings_one_is_green_and_a_failed_restart_is_a_banner_whatever_became_of_it()
-> anyhow::Result<()> {
    if !is_asked_for("of all endings one is green") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    let verified = "package_updated_restart_verified";
    let script = ENDINGS.replace("VERIFIED", &json!(verified).to_string());
    let told = viewer.tab.evaluate(&script.replace("SENTENCE", &json!(M10).to_string())).await?;
    let told: Vec<Told> = serde_json::from_value(told)?;
    assert_eq!(told.len(), 50);
    for told in &told {
        let is_complete = told.status == verified && !told.is_reverted;
        assert_eq!(told.is_green, is_complete, "{told:?}");
        assert!(!told.mark.trim().is_empty(), "a colour is never alone: {told:?}");
        if told.status != "package_updated_restart_failed" {
            continue;
        }
        // A person is needed, or somebody was there already.
        let (tone, role) = match told.resolution.as_str() {
            "none" | "old_unverified" | "maintenance" => ("banner bad", "alert"),
            _ => ("banner warn", "status"),
        };
        assert_eq!((told.tone.as_str(), told.role.as_deref()), (tone, Some(role)), "{told:?}");
        assert!(told.text.as_deref().is_some_and(|text| text.contains(M10)), "{told:?}");
    }
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_a_crash_at_boot_is_taken_back_and_stays_amber_with_its_cause() -> anyhow::Result<()> {
    if !is_asked_for("a crash at boot stays amber") {
        return Ok(());
    }
    let broken = Knobs { crash_at_boot: Some(9), crash_names_module: true, ..Knobs::default() };
    // A service may tell what it likes: it is text.
    let liar = Knobs { report_version: Some("<img src=x onerror=alert(1)>".into()), ..Knobs::default() };
    let releases = [("1.0.0", Knobs::default()), ("2.0.0", broken), ("3.0.0", liar)];
    let house = House::new(&rules("", &[]), &releases).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.note_tones().await?;
    viewer.update("2.0.0").await?;
    assert_eq!(viewer.marked("failed, reverted").await?, "warn");
    never_looked_complete(&mut viewer).await?;
    viewer.reads("Update to 2.0.0 failed after the switch; 1.0.0 is serving again, verified.").await?;
    let banner = viewer.text_of(".banner.warn").await?;
    assert!(banner.contains("It failed at") && banner.contains("Serving now: 1.0.0"), "{banner}");
    let history = "document.querySelectorAll('#history ~ .scroll tbody tr').length === 2";
    viewer.sees("both runs", history).await?;
    viewer.pictures("reverted").await?;
    viewer.is_usable().await?;
    viewer
        .tab
        .evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        .await?;
    viewer.press("The one before").await?;
    viewer.sees("the tripwire", "document.querySelector('.tripped')?.innerText.includes('gone')").await?;
    viewer.pictures("reverted-log").await?;
    viewer.update("3.0.0").await?;
    viewer.reads("Update to 3.0.0 failed after the switch").await?;
    viewer.reads("<img src=x onerror=alert(1)>").await?;
    assert_eq!(
        viewer.tab.evaluate("document.querySelectorAll('main img, [onerror]').length").await?,
        json!(0)
    );
    never_looked_complete(&mut viewer).await?;
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_maintenance_is_a_banner_until_a_person_has_resolved_it() -> anyhow::Result<()> {
    if !is_asked_for("maintenance is a banner until it is resolved") {
        return Ok(());
    }
    let broken = Knobs { crash_at_boot: Some(9), ..Knobs::default() };
    let service = rules("", &[("rollback", "\"never\"")]);
    let house = House::new(&service, &[("1.0.0", Knobs::default()), ("2.0.0", broken)]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.note_tones().await?;
    let told = viewer.update("2.0.0").await?;
    assert!(told.contains("declared maintenance"), "{told}");
    assert_eq!(viewer.marked("maintenance").await?, "bad");
    never_looked_complete(&mut viewer).await?;
    let banner = viewer.text_of(".banner.bad").await?;
    let typed = house.world.typed("recover web --rollback");
    for said in [M10, "Serving now: nothing that is proven", &typed] {
        assert!(banner.contains(said), "{said}: {banner}");
    }
    let role = "document.querySelector('.banner.bad').getAttribute('role')";
    assert_eq!(viewer.tab.evaluate(role).await?, json!("alert"));
    viewer.pictures("maintenance").await?;
    viewer.is_usable().await?;
    viewer.press(&format!("Copy: {typed}")).await?;
    viewer
        .sees("what became of it", "/Copied|Selected/.test(document.querySelector('.banner').innerText)")
        .await?;
    // It does not go away by looking elsewhere, nor by loading the page anew.
    viewer.go_home().await?;
    viewer.reads(M10).await?;
    viewer.reload().await?;
    viewer.reads(M10).await?;
    viewer.go("web").await?;
    viewer.marked("maintenance").await?;
    let told = viewer.order("Go back", "Go back").await?;
    assert!(told.contains("1.0.0"), "{told}");
    viewer.sees("the banner gone", &format!("!document.body.innerText.includes({})", json!(M10))).await?;
    serving(&house.world, "1.0.0").await?;
    let tone = viewer.marked("serving").await?;
    assert_ne!(tone, "good", "the update that was given up stays failed");
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn m15_an_ignored_restart_is_shown_as_failed() -> anyhow::Result<()> {
    if !is_asked_for("an ignored restart is shown as failed") {
        return Ok(());
    }
    let deaf = Knobs { ignore_usr1: true, ..Knobs::default() };
    let service = rules("strategy = \"signal\"", &[("stop_grace", "\"500ms\"")]);
    let house = House::new(&service, &[("1.0.0", deaf), ("2.0.0", Knobs::default())]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.note_tones().await?;
    let told = viewer.update("2.0.0").await?;
    assert!(told.contains("asked by a signal"), "{told}");
    assert_eq!(viewer.marked("failed, reverted").await?, "warn");
    never_looked_complete(&mut viewer).await?;
    viewer.reads("restart_ignored").await?;
    viewer.is_content();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_does_not_hear_the_daemon_says_since_when_and_shows_nothing_green() -> anyhow::Result<()>
{
    if !is_asked_for("a page that does not hear the daemon says so") {
        return Ok(());
    }
    let mut house = House::new(&rules("", &[("watch", "\"1ms\"")]), &[("1.0.0", Knobs::default())]).await?;
    house.publish_waiting("2.0.0")?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    viewer.marked("verified").await?;
    viewer.note_tones().await?;
    viewer.update("2.0.0").await?;
    house.world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    house.world.kill_daemon()?;
    house.let_it_boot()?;
    viewer.reads("not connected since").await?;
    assert_eq!(viewer.marked("not connected").await?, "lost");
    let pressable =
        "document.querySelectorAll('main button:not([aria-disabled]):not([aria-pressed])').length";
    assert_eq!(viewer.tab.evaluate(pressable).await?, json!(0), "nothing can be ordered");
    never_looked_complete(&mut viewer).await?;
    viewer.pictures("not-connected").await?;
    house.world.start_daemon().await?;
    viewer.reads("the daemon was started again").await?;
    viewer.pictures("login-again").await?;
    let opened = house.opened().await?;
    viewer.tab.go(&opened).await?;
    viewer.sees("the services", "document.querySelector('.card')").await?;
    viewer.go("web").await?;
    assert_eq!(viewer.marked("verified").await?, "good", "the run was ended by the next daemon");
    let view = serving(&house.world, "2.0.0").await?;
    assert_eq!(view.report.resolution, Resolution::None);
    viewer.complains_of_answers_alone();
    // A process that hangs is trouble, however green it was.
    viewer.note_tones().await?;
    signal(view.process.unwrap().pid, Signal::STOP)?;
    viewer.reads("not ready").await?;
    assert_eq!(viewer.marked("trouble").await?, "bad");
    viewer.reads("Trouble: ").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_drawn_says_so_in_place_of_what_it_showed_until_it_can() -> anyhow::Result<()> {
    if !is_asked_for("a page that cannot be drawn says so") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    house.world.install("1.0.0").await?;
    let mut viewer = house.visit().await?;
    assert_eq!(viewer.marked("verified").await?, "good");
    // From now on everything that is told lacks something.
    let lacking =
        "window.whole = JSON.parse; JSON.parse = (text) => ({ ...whole(text), tellings: null }); void 0";
    viewer.tab.evaluate(lacking).await?;
    assert_eq!(house.world.cutover(&["stop"]).await?.status.code(), Some(0));
    let notice = "document.querySelector('.banner.bad[role=alert]')?.innerText.includes('This page cannot be drawn: ')";
    viewer.sees("the notice", notice).await?;
    viewer.reads("Load it again.").await?;
    let left =
        "document.querySelectorAll('.good, .chip, dl').length + document.querySelector('#status').innerText";
    assert_eq!(viewer.tab.evaluate(left).await?, json!("0"), "nothing is left of what it showed");
    let moments =
        "import('/page/words.js').then(({ span, ago }) => [span(NaN), ago(Date.parse('once'), Date.now())])";
    assert_eq!(viewer.tab.evaluate(moments).await?, json!(["–", "– ago"]), "no moment is no reason for it");
    viewer.pictures("undrawn").await?;
    viewer.is_usable().await?;
    // What can be drawn is drawn, without being loaded again.
    viewer.tab.evaluate("JSON.parse = whole; void 0").await?;
    assert_eq!(house.world.cutover(&["start"]).await?.status.code(), Some(0));
    assert_eq!(viewer.marked("verified").await?, "good");
    viewer.is_content();
    Ok(())
}
