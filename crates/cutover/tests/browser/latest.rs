//! The page of 2026.9: its button opens a dialog that follows the run by its id, through the restart.

use super::{ALONE, INSTALL, LOOK, RUN, gateway, offer, pictures};
use crate::world::{CALL, TOKEN, World};
use cutover_core::{Report, Resolution, Status};
use cutover_testkit::browser::{self, Browser, Tab};
use cutover_testkit::openclaw::{self, Defect, LATEST, Runtime};
use cutover_testkit::registry::{Package, Registry};
use cutover_testkit::slow;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::MutexGuard;

/// What is offered after the new version, what the page says became of it, and the first fault of each: one tells another
/// version, one ends by itself, and one is a server that never gets ready, which has no validator either.
const BROKEN: [(&str, Defect, &str, &str); 3] = [
    ("2026.9.7", Defect::TellsVersion(LATEST[1]), "rolled-back", "wrong_version"),
    ("2026.9.8", Defect::EndsAfter(1500), "rolled-back", "exited"),
    ("2026.9.9", Defect::NeverReady, "failed", "preflight"),
];

/// The page about updates.
const UPDATES: &str = "/settings/updates";

/// What of the page tells about updates.
const SEEN: &str = "(() => {
  const text = (selector) => document.querySelector(selector)?.innerText.trim().replace(/\\s+/g, ' ') || null;
  return {
    build: text('.sidebar-footer-build__text'),
    update_now: (() => {
      const buttons = [...document.querySelectorAll('#config-section-update button.primary')];
      const button = buttons.find((button) => button.innerText.includes('Update now'));
      if (button) button.id = 'update-now';
      return !!button && !button.disabled;
    })(),
    status: [...document.querySelectorAll('.updates-status-control')].map((control) => control.innerText.trim()).join(' | '),
    dialog: text('.update-run-dialog .exec-approval-header'),
    asked: text('.update-run-dialog .exec-approval-command'),
    run: document.querySelector('.update-run-view')?.dataset.runStatus ?? null,
    headline: text('.update-run-view h3'),
    report: text('.update-run-view__report'),
    phases: [...document.querySelectorAll('.update-run-view__phases')].slice(0, 1).flatMap((phases) =>
      [...phases.children].map((phase) => `${phase.dataset.step}: ${phase.dataset.status}`)),
    oracles: [...document.querySelectorAll('.update-run-view__oracles')].slice(0, 1).flatMap((oracles) =>
      [...oracles.children].map((oracle) => `${oracle.dataset.oracle}: ${oracle.dataset.state}`)),
    alerts: [...document.querySelectorAll('[role=alert]')].filter((alert) => alert.checkVisibility())
      .map((alert) => alert.innerText.trim()),
  };
})()";

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Seen {
    build: Option<String>,
    /// The button is there, and may be pressed.
    update_now: bool,
    status: String,
    dialog: Option<String>,
    /// From which version to which.
    asked: Option<String>,
    run: Option<String>,
    headline: Option<String>,
    report: Option<String>,
    /// Of the first view of a run that there is, as are the facts.
    phases: Vec<String>,
    oracles: Vec<String>,
    alerts: Vec<String>,
}

/// How long a page that heard a press takes to show it, on a busy machine.
const HEARD: Duration = Duration::from_secs(5);

/// One open page, and what it showed, as long as it went on showing it.
struct Ui {
    tab: Tab,
    begun: Instant,
    last: Seen,
}

impl Ui {
    async fn open(browser: &Browser, world: &World, place: &str) -> Ui {
        let url = format!("http://127.0.0.1:{}{place}#token={TOKEN}", world.front[0].port());
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

    /// Presses the button until the page asks whether this version is meant. A page that is connecting again does not hear
    /// it, and one that has not been told of the version yet means another.
    async fn ask(&mut self, offered: &str) {
        let begun = Instant::now();
        loop {
            self.tab.press_within(CALL, "#update-now").await.unwrap();
            let pressed = Instant::now();
            while pressed.elapsed() < HEARD {
                match self.look().await.asked {
                    Some(asked) if asked.contains(offered) => return,
                    Some(_) => {
                        self.tab.press(".update-run-dialog .btn:not(.danger)").await.unwrap();
                        break;
                    }
                    None => tokio::time::sleep(LOOK).await,
                }
            }
            self.until("the button", |seen| seen.update_now || seen.asked.is_some()).await;
            assert!(begun.elapsed() < CALL, "the question about {offered}: {:?}", self.last);
        }
    }

    async fn picture(&mut self, name: &str) {
        self.tab.picture(&pictures().join(format!("{name}.png"))).await.unwrap();
    }

    /// Presses the button and confirms, and watches the page until the verdict: as long as there is none, nothing is told as
    /// done.
    async fn press(&mut self, world: &World, offered: &str) -> Report {
        // After a failure the page has that where else it has the offer; what it would install it says when it is pressed.
        self.until("the button", |seen| seen.update_now).await;
        self.picture(&format!("{offered}-1-offered")).await;
        let before = world.view().await.report.run_id;
        self.ask(offered).await;
        self.picture(&format!("{offered}-2-asked")).await;
        self.tab.press(".update-run-dialog .btn.danger").await.unwrap();
        self.until("the press", |seen| seen.run.as_deref() == Some("running")).await;
        self.picture(&format!("{offered}-3-pending")).await;
        let (begun, mut is_pictured) = (Instant::now(), false);
        loop {
            let seen = self.look().await;
            let report = world.view().await.report;
            if report.run_id != before && report.ended.is_some() {
                return report;
            }
            // The page was looked at before the daemon was: there was no verdict then.
            assert!(matches!(seen.run.as_deref(), None | Some("running")), "{seen:?} without a verdict");
            assert!(seen.report.is_none(), "{seen:?} without a verdict: {report:#?}");
            if !is_pictured && report.serving.posture == "hold" {
                self.picture(&format!("{offered}-4-stopped")).await;
                is_pictured = true;
            }
            assert!(begun.elapsed() < RUN, "no verdict: {report:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r78110_the_page_of_2026_9_follows_its_run_through_the_restart_to_its_proof() {
    if !slow::is_asked_for("browser", "the latest page's own button is pressed") {
        return;
    }
    let [old, new] = LATEST;
    let stage = Stage::with(old).await;
    stage.registry.publish(&Package::from_directory(&stage.package(new).await).unwrap());
    the_new_version_is_followed_to_its_proof(&stage).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r78110_no_broken_build_is_shown_as_complete_by_the_page_of_2026_9() {
    if !slow::is_asked_for("browser", "the latest page's own button is pressed on broken builds") {
        return;
    }
    let new = LATEST[1];
    let stage = Stage::with(new).await;
    let package = stage.package(new).await;
    for (version, defect, end, cause) in BROKEN {
        stage.registry.publish(&openclaw::broken(&package, version, defect).unwrap());
        a_broken_build_is_never_shown_as_complete(&stage, version, end, cause).await;
    }
    stage.end().await;
}

/// A gateway that serves, with the button and a browser.
struct Stage {
    _alone: MutexGuard<'static, ()>,
    runtime: Runtime,
    cache: PathBuf,
    registry: Registry,
    world: World,
    browser: Browser,
}

impl Stage {
    async fn with(version: &str) -> Stage {
        let alone = ALONE.lock().await;
        let program = browser::installed().expect("no Chromium is on PATH");
        let cache = openclaw::cache();
        std::fs::create_dir_all(pictures()).unwrap();
        let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
        let registry = Registry::start().await.unwrap();
        registry.redirect_unknown_to(&openclaw::registry(CALL).await.unwrap());
        let mut world = World::new(&runtime, &cache, &registry.url());
        world.configure(|service| {
            service.insert("check_every".into(), "5s".into());
        });
        world.rule("start_deadline", "100s");
        world.rehearse("never");
        let package = gateway(&runtime, &cache, version).await;
        registry.publish(&Package::from_directory(&package).unwrap());
        registry.tag("openclaw", "latest", version);
        world.start_daemon(&[]).await;
        let begun = Instant::now();
        let (report, code) = world.update(version).await;
        assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
        println!("{version} serves after {:?}", begun.elapsed());
        let browser = Browser::start(&program, CALL).await.unwrap();
        Stage { _alone: alone, runtime, cache, registry, world, browser }
    }

    async fn package(&self, version: &str) -> PathBuf {
        gateway(&self.runtime, &self.cache, version).await
    }

    async fn end(self) {
        drop(self.browser);
        self.world.end().await;
    }
}

async fn the_new_version_is_followed_to_its_proof(stage: &Stage) {
    let Stage { world, registry, browser, .. } = stage;
    let [old, new] = LATEST;
    let mut ui = Ui::open(browser, world, UPDATES).await;
    let is_old = |seen: &Seen| seen.build.as_deref() == Some(old) && seen.update_now;
    ui.until("the page of the old version", is_old).await;
    // Nothing is loaded anew: a page that is open is told.
    offer(world, registry, new).await;
    ui.until("the offer", |seen| seen.status.contains(&format!("v{new}"))).await;
    let report = ui.press(world, new).await;
    assert_eq!((report.status, report.ok), (Some(Status::RestartVerified), true), "{report:#?}");
    assert_eq!(report.actor.as_deref(), Some("button"));
    let is_done =
        |seen: &Seen| seen.run.as_deref() == Some("succeeded") && seen.build.as_deref() == Some(new);
    let seen = ui.until("the success", is_done).await;
    ui.picture(&format!("{new}-5-done")).await;
    assert!(seen.headline.unwrap().contains(&format!("OpenClaw updated to {new} (from {old})")));
    assert!(
        seen.phases.len() == 7 && seen.phases.iter().all(|phase| phase.ends_with(": completed")),
        "{:?}",
        seen.phases
    );
    // No plugin is one thing with this gateway, so that nobody looked at any.
    assert_eq!(seen.oracles, ["service: pass", "version: pass", "plugins: warn", "channels: warn"]);
    let own = stage.package(old).await.join("dist/control-ui/assets");
    let complaints = ui.tab.complaints().iter().filter(|complaint| !is_of_the_old_page(complaint, &own));
    assert_eq!((complaints.collect::<Vec<_>>(), seen.alerts.as_slice()), (vec![], &[] as &[String]));

    let mut later = Ui::open(browser, world, UPDATES).await;
    later.until("the same on a page that was opened later", is_done).await;
    assert_eq!(later.tab.complaints(), [""; 0]);
}

/// A page that is open while the gateway becomes another may still ask for a part of its own, which is gone with its
/// version. It then loads itself anew.
fn is_of_the_old_page(complaint: &str, assets: &Path) -> bool {
    let name = complaint.rsplit_once("/assets/").map(|(_, name)| name);
    complaint.contains("404") && name.is_some_and(|name| assets.join(name).is_file())
}

async fn a_broken_build_is_never_shown_as_complete(stage: &Stage, version: &str, end: &str, cause: &str) {
    let Stage { world, registry, browser, .. } = stage;
    let new = LATEST[1];
    offer(world, registry, version).await;
    let mut ui = Ui::open(browser, world, UPDATES).await;
    let report = ui.press(world, version).await;
    assert!(!report.ok && report.resolution == Resolution::OldVerified, "{report:#?}");
    let is_over =
        |seen: &Seen| seen.run.as_deref().is_some_and(|run| run != "running") && seen.build.is_some();
    let seen = ui.until("the failure", is_over).await;
    ui.picture(&format!("{version}-5-failed")).await;
    println!("{}", ui.tab.text().await.unwrap());
    assert_eq!((seen.run.as_deref(), seen.build.as_deref()), (Some(end), Some(new)), "{seen:?}");
    let told = format!("{} {}", seen.headline.unwrap(), seen.report.unwrap());
    assert!(!told.contains("updated to") && told.contains(cause), "{told}");
    assert!(seen.phases.iter().any(|phase| phase.ends_with(": failed")), "{:?}", seen.phases);
    assert_eq!(world.hello(world.front[0]).await.version, new);
    println!("the console, {version}: {:#?}", ui.tab.complaints());
    assert!(!ui.tab.complaints().iter().any(|complaint| complaint.starts_with("thrown: ")));
}
