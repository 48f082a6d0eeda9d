//! The real Control UI in a real browser, through the front: its own button is pressed, and it says what became of it, a
//! success only where there is one.
//!
//! `CUTOVER_TEST=browser cargo test -p cutover --test browser -- --nocapture`; what was seen is in `target/browser`.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

#[allow(dead_code, reason = "shared with the test `real`, which asks more of it")]
#[path = "real/world.rs"]
mod world;

#[path = "browser/latest.rs"]
mod latest;

use cutover_core::{Report, Resolution, Status};
use cutover_testkit::browser::{self, Browser, Tab};
use cutover_testkit::openclaw::{self, Defect, NEW, OLD, Runtime, SHARED_NAME};
use cutover_testkit::registry::Registry;
use cutover_testkit::slow;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use world::{CALL, TOKEN, World, target};

/// Two gateways and two browsers at once would judge the machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const INSTALL: Duration = Duration::from_secs(600);
/// From a press to its verdict.
const RUN: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(200);
/// What is offered after the new version, and what a person shall read of it: one is taken back, and one ends within its
/// own validator, before anything is stopped.
const BROKEN: [(&str, Defect, &str); 2] = [
    ("2026.5.5", Defect::TellsVersion(NEW), "Update error: wrong_version. "),
    ("2026.5.6", Defect::EndsAfter(1500), "Update error: exited. "),
];

/// The gateway's own goodbye to its clients, in the page's words. It is shown until the page has come back.
const GOODBYE: &str = "Disconnected: gateway stopping";

/// What of the page tells about updates.
const SEEN: &str = "(() => {
  const text = (selector) => document.querySelector(selector)?.innerText.trim() || null;
  return {
    version: text('.sidebar-version__text'),
    offer: text('.update-banner'),
    button: text('.update-banner__btn'),
    alerts: [...document.querySelectorAll('[role=alert], .callout.danger')]
      .filter((alert) => !alert.matches('.update-banner')).map((alert) => alert.innerText.trim()),
    connected: document.querySelector('openclaw-app')?.connected === true,
    settled: document.querySelector('openclaw-app')?.pendingUpdateExpectedVersion == null,
  };
})()";

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Seen {
    version: Option<String>,
    offer: Option<String>,
    button: Option<String>,
    alerts: Vec<String>,
    connected: bool,
    /// It waits for no version to appear.
    settled: bool,
}

impl Seen {
    fn serves(&self, version: &str) -> bool {
        self.connected && self.version.as_deref() == Some(&format!("v{version}"))
    }

    fn is_pending(&self) -> bool {
        self.button.as_deref() == Some("Updating…")
    }
}

/// One open page, and what it showed, as long as it went on showing it.
struct Ui {
    tab: Tab,
    begun: Instant,
    last: Seen,
}

impl Ui {
    /// Opens the Control UI as a person does, at the front.
    async fn open(browser: &Browser, world: &World) -> Ui {
        let url = format!("http://127.0.0.1:{}/#token={TOKEN}", world.front[0].port());
        let tab = browser.open(&url, CALL).await.unwrap();
        Ui { tab, begun: Instant::now(), last: Seen::default() }
    }

    async fn look(&mut self) -> Seen {
        let seen: Seen = serde_json::from_value(self.tab.evaluate(SEEN).await.unwrap()).unwrap();
        if seen != self.last {
            println!("{:7.1} s {seen:?}", self.begun.elapsed().as_secs_f64());
            self.last = seen.clone();
        }
        seen
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let begun = Instant::now();
        loop {
            let seen = self.look().await;
            if wanted(&seen) {
                return seen;
            }
            if begun.elapsed() > CALL {
                self.picture("missing").await;
                panic!("{what}: {seen:?}: {}", self.tab.text().await.unwrap());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the page has got from the gateway what it needs for a chat.
    async fn works(&mut self) {
        let ready = "document.body.innerText.includes('Ready to chat')";
        self.tab.until("the chat", ready, CALL).await.unwrap();
    }

    async fn picture(&mut self, name: &str) {
        self.tab.picture(&pictures().join(format!("{name}.png"))).await.unwrap();
    }

    /// Presses the button where `serving` serves and `offered` is offered, and watches the page until the verdict: as
    /// long as there is none, the press is pending and nothing else is told.
    async fn press(&mut self, world: &World, serving: &str, offered: &str) -> Report {
        let shown = self
            .until("the offer", |seen| seen.serves(serving) && seen.button.as_deref() == Some("Update now"))
            .await;
        assert_eq!(shown.alerts, [""; 0]);
        let offer = shown.offer.unwrap();
        assert!(offer.contains(&format!("v{offered}")) && offer.contains(&format!("v{serving}")), "{offer}");
        self.picture(&format!("{offered}-1-offered")).await;
        let before = world.view().await.report.run_id;
        self.tab.press(".update-banner__btn").await.unwrap();
        self.until("the press", Seen::is_pending).await;
        self.picture(&format!("{offered}-2-pending")).await;

        let (begun, mut is_pictured) = (Instant::now(), false);
        loop {
            let seen = self.look().await;
            let view = world.view().await;
            let report = view.report;
            if report.run_id != before && report.ended.is_some() {
                return report;
            }
            // The page was looked at before the daemon was: there was no verdict then.
            assert!(seen.is_pending(), "{seen:?} without a verdict: {report:#?}");
            assert!(seen.serves(serving), "{seen:?} without a verdict: {report:#?}");
            let is_calm = seen.alerts.iter().all(|alert| alert == GOODBYE);
            assert!(is_calm, "{seen:?} without a verdict: {report:#?}");
            if !is_pictured && report.serving.posture == "hold" {
                self.picture(&format!("{offered}-3-stopped")).await;
                is_pictured = true;
            }
            assert!(begun.elapsed() < RUN, "no verdict: {report:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r78110_the_real_page_shows_the_new_version_after_its_proof_and_no_broken_one_as_complete() {
    if !slow::is_asked_for("browser", "the real page's own button is pressed") {
        return;
    }
    let _alone = ALONE.lock().await;
    let program = browser::installed().expect("no Chromium is on PATH");
    let cache = openclaw::cache();
    std::fs::create_dir_all(pictures()).unwrap();
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    let registry = Registry::start().await.unwrap();
    registry.redirect_unknown_to(&openclaw::registry(CALL).await.unwrap());
    registry.publish(&openclaw::progress_lines("1.0.0", SHARED_NAME));
    let old = gateway(&runtime, &cache, OLD).await;
    registry.publish_directory(&old).unwrap();
    let mut world = World::new(&runtime, &cache, &registry.url()).with_lines();
    world.configure(|service| drop(service.insert("check_every".into(), "5s".into())));
    world.rehearse("never");
    world.start_daemon(&[]).await;
    let begun = Instant::now();
    let (report, code) = world.update(OLD).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    println!("{OLD} serves after {:?}", begun.elapsed());

    let browser = Browser::start(&program, CALL).await.unwrap();
    let new = gateway(&runtime, &cache, NEW).await;
    registry.publish_directory(&new).unwrap();
    the_new_version_is_shown_after_its_proof(&world, &registry, &browser).await;
    for (version, defect, said) in BROKEN {
        registry.publish(&openclaw::broken(&new, version, defect).unwrap());
        a_broken_build_is_never_shown_as_complete(&world, &registry, &browser, version, said).await;
    }
    println!("all of it took {:?}", begun.elapsed());
    drop(browser);
    world.end().await;
}

async fn the_new_version_is_shown_after_its_proof(world: &World, registry: &Registry, browser: &Browser) {
    offer(world, registry, NEW).await;
    let mut onlooker = Ui::open(browser, world).await;
    let mut ui = Ui::open(browser, world).await;
    let report = ui.press(world, OLD, NEW).await;
    assert_eq!((report.status, report.ok), (Some(Status::RestartVerified), true), "{report:#?}");
    assert_eq!(report.actor.as_deref(), Some("button"));
    let is_done = |seen: &Seen| seen.serves(NEW) && seen.settled && seen.button.is_none();
    let shown = ui.until("the new version", is_done).await;
    assert_eq!(shown.alerts, [""; 0], "the page complains of a good update");
    ui.works().await;
    ui.picture(&format!("{NEW}-4-done")).await;
    let shown = onlooker.until("the new version on a page that pressed nothing", is_done).await;
    assert_eq!(shown.alerts, [""; 0]);
    let mut later = Ui::open(browser, world).await;
    let shown = later.until("the new version's own page", is_done).await;
    assert_eq!(shown.alerts, [""; 0]);
    later.works().await;
    later.picture(&format!("{NEW}-5-opened-anew")).await;
    for (name, page) in [("pressed", &ui), ("looked on", &onlooker), ("was opened later", &later)] {
        assert_eq!(page.tab.complaints(), [""; 0], "the page that {name}");
    }
}

async fn a_broken_build_is_never_shown_as_complete(
    world: &World,
    registry: &Registry,
    browser: &Browser,
    version: &str,
    said: &str,
) {
    offer(world, registry, version).await;
    let mut ui = Ui::open(browser, world).await;
    let report = ui.press(world, NEW, version).await;
    assert!(!report.ok && report.resolution == Resolution::OldVerified, "{report:#?}");
    let is_told = |seen: &Seen| !seen.is_pending() && seen.alerts.iter().any(|alert| alert.starts_with(said));
    ui.until("the failure", is_told).await;
    ui.picture(&format!("{version}-4-failed")).await;
    let is_back = |seen: &Seen| seen.serves(NEW) && !seen.alerts.iter().any(|alert| alert == GOODBYE);
    ui.until("what serves", is_back).await;
    ui.works().await;
    let shown = ui.look().await;
    ui.picture(&format!("{version}-5-serves-again")).await;
    assert!(shown.serves(NEW) && is_told(&shown) && shown.alerts.len() == 1, "{shown:?}");
    // Nothing was reverted that had been a success, so the channel still offers it: a person may try again.
    assert_eq!(shown.button.as_deref(), Some("Update now"));
    assert_eq!(world.hello(world.front[0]).await.version, NEW);
    println!("the console, {version}: {:#?}", ui.tab.complaints());
    assert!(!ui.tab.complaints().iter().any(|complaint| complaint.starts_with("thrown: ")));
}

/// Lets the followed channel name a version, and waits until the daemon has seen that.
async fn offer(world: &World, registry: &Registry, version: &str) {
    registry.tag("openclaw", "latest", version);
    let is_seen = |view: &cutover::conductor::View| {
        view.available.as_ref().is_some_and(|available| available.version == version)
    };
    world.until("the offer", is_seen).await;
}

/// The package of a version, as npm laid it down.
async fn gateway(runtime: &Runtime, cache: &Path, version: &str) -> PathBuf {
    runtime.gateway(version, &cache.join("openclaw").join(version), INSTALL).await.unwrap()
}

fn pictures() -> PathBuf {
    target().join("browser")
}
