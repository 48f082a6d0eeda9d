//! A daemon with a page, and somebody who looks at it.

use crate::stage::{configure, executable, unserved, with_policy};
use anyhow::Context;
use cutover::demo::{Plan, World, free_address};
use cutover_testkit::browser::{self, Browser, Scheme, Tab};
use cutover_testkit::openclaw::{self, Runtime};
use cutover_testkit::slow;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long anything on a page is waited for.
pub(crate) const LOOK: Duration = Duration::from_secs(60);
const INSTALL: Duration = Duration::from_secs(300);
/// What checks the page, from npm: the types of its files, and whether everybody can use it.
const TOOLS: [&str; 2] = ["typescript@7.0.2", "axe-core@4.14.1"];

/// Notes every tone that the mark beside the heading has had, in order, so that one that was there for a moment is seen.
const NOTE_TONES: &str = "(() => {
  window.tones = [];
  const note = () => {
    const tone = document.querySelector('h1 .chip')?.className.replace('chip ', '');
    if (tone && window.tones.at(-1) !== tone) window.tones.push(tone);
  };
  new MutationObserver(note).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  note();
})()";

/// What axe finds serious or critical, in words.
const AXE: &str = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
  .filter(({ impact }) => impact === 'serious' || impact === 'critical')
  .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(' | ')}`))";

/// What was loaded from anywhere but the daemon.
const ELSEWHERE: &str = "performance.getEntriesByType('resource').map(({ name }) => name)
  .filter((name) => !name.startsWith(`${location.origin}/`) && !name.startsWith('data:'))";

/// Whether the tests of the page are to run.
pub(crate) fn is_asked_for(test: &str) -> bool {
    slow::is_one_asked_for(&["page", "browser"], test)
}

/// Rules for a run that is looked at as long as that takes.
pub(crate) const PATIENT: [(&str, &str); 2] = [("start_deadline", "\"2m\""), ("hold", "\"2m\"")];

/// Further lines of the service, and rules: quick ones, save that a browser beside it may take all of the machine.
pub(crate) fn rules(service: &str, changed: &[(&str, &str)]) -> String {
    with_policy(service, &[&[("start_deadline", "\"15s\"")], changed].concat())
}

/// A world whose daemon has a page, and a browser.
pub(crate) struct House {
    pub(crate) world: World,
    pub(crate) address: SocketAddr,
    browser: Browser,
}

impl House {
    /// Nothing is installed yet.
    pub(crate) async fn new(service: &str, releases: &[(&str, Knobs)]) -> anyhow::Result<House> {
        let plan = Plan { service: service.to_owned(), ..Plan::new(executable()) };
        House::of(unserved(plan, releases)?).await
    }

    /// The daemon of this world is to be started.
    pub(crate) async fn of(mut world: World) -> anyhow::Result<House> {
        let address = free_address()?;
        configure(&world, "listen = \"off\"", &format!("listen = \"{address}\""))?;
        world.start_daemon().await?;
        let program = browser::installed().context("no Chromium is on PATH")?;
        let browser = Browser::start(&program, LOOK).await?;
        Ok(House { world, address, browser })
    }

    /// Publishes a release that does not boot before it may: what is looked at meanwhile stays as it is.
    pub(crate) fn publish_waiting(&self, version: &str) -> anyhow::Result<()> {
        self.world.publish(version, Knobs { boot_after: Some(self.go()), ..Knobs::default() })
    }

    /// From now on it boots.
    pub(crate) fn let_it_boot(&self) -> anyhow::Result<()> {
        std::fs::write(self.go(), "").context("let it boot")
    }

    fn go(&self) -> PathBuf {
        self.world.path().join("go")
    }

    /// The address that `cutover open` prints.
    pub(crate) async fn opened(&self) -> anyhow::Result<String> {
        let printed = self.world.cutover(&["open"]).await?;
        Ok(String::from_utf8(printed.stdout)?.trim().to_owned())
    }

    /// A page that is logged in and shows the service.
    pub(crate) async fn visit(&self) -> anyhow::Result<Viewer> {
        let mut viewer = self.tab(&self.opened().await?).await?;
        viewer.sees("the services", "document.querySelector('.card')").await?;
        viewer.go("web").await?;
        Ok(viewer)
    }

    /// A page at an address, in a tab of its own.
    pub(crate) async fn tab(&self, url: &str) -> anyhow::Result<Viewer> {
        let mut tab = self.browser.open(url, LOOK).await?;
        tab.screen(1280, 900, Scheme::Light).await?;
        Ok(Viewer { tab })
    }
}

/// Somebody at a page.
pub(crate) struct Viewer {
    pub(crate) tab: Tab,
}

impl Viewer {
    /// Waits until an expression is something, and tells what.
    pub(crate) async fn sees(&mut self, what: &str, expression: &str) -> anyhow::Result<Value> {
        let seen = self.tab.until(what, expression, LOOK).await;
        if seen.is_err() {
            self.tab.whole_picture(&pictures().join("missing.png")).await?;
        }
        seen.with_context(|| format!("the console says {:?}", self.tab.complaints()))
    }

    /// Waits until a text is on the page.
    pub(crate) async fn reads(&mut self, text: &str) -> anyhow::Result<()> {
        let expression = format!("document.body.innerText.includes({})", json!(text));
        self.sees(text, &expression).await.map(drop)
    }

    /// The text of the one element that a selector names.
    pub(crate) async fn text_of(&mut self, selector: &str) -> anyhow::Result<String> {
        let expression = format!("document.querySelector({})?.innerText ?? ''", json!(selector));
        Ok(self.tab.evaluate(&expression).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Goes to a place of the page.
    pub(crate) async fn go(&mut self, place: &str) -> anyhow::Result<()> {
        self.tab.evaluate(&format!("void (location.hash = {})", json!(format!("#/{place}")))).await?;
        let name = place.split('/').next().unwrap_or_default();
        let there = format!("document.querySelector('nav')?.innerText.includes({})", json!(name));
        self.sees(place, &there).await.map(drop)
    }

    /// Goes to the list of services.
    pub(crate) async fn go_home(&mut self) -> anyhow::Result<()> {
        self.tab.evaluate("void (location.hash = '#/')").await?;
        self.sees("the services", "document.querySelector('.card')").await.map(drop)
    }

    /// Loads the page anew.
    pub(crate) async fn reload(&mut self) -> anyhow::Result<()> {
        self.tab.evaluate("window.isOld = true; void location.reload()").await?;
        self.sees("a new page", "!window.isOld && document.readyState === 'complete'").await.map(drop)
    }

    /// Presses the button that is called so.
    pub(crate) async fn press(&mut self, label: &str) -> anyhow::Result<()> {
        let find = format!(
            "(() => {{
              for (const other of document.querySelectorAll('[data-press]')) other.removeAttribute('data-press');
              const inside = document.querySelector('dialog') ?? document;
              const named = [...inside.querySelectorAll('button')].filter((button) =>
                [button.innerText.trim(), button.getAttribute('aria-label')].includes({label}) && !button.hasAttribute('aria-disabled'));
              if (named.length !== 1) return false;
              named[0].scrollIntoView({{ block: 'center' }});
              named[0].setAttribute('data-press', '');
              return true;
            }})()",
            label = json!(label)
        );
        self.tab.show().await?;
        self.sees(&format!("one enabled button {label}"), &find).await?;
        self.tab.press("[data-press]").await
    }

    /// Presses the link that is called so.
    pub(crate) async fn press_link(&mut self, text: &str) -> anyhow::Result<()> {
        let find = format!(
            "(() => {{
              const link = [...document.querySelectorAll('a')].find((link) => link.innerText === {});
              link?.scrollIntoView({{ block: 'center' }});
              link?.setAttribute('data-follow', '');
              return Boolean(link);
            }})()",
            json!(text)
        );
        self.sees(&format!("a link {text}"), &find).await?;
        self.tab.press("[data-follow]").await
    }

    /// Presses a button that opens a dialog, reads what it leads to, and presses its own button.
    pub(crate) async fn order(&mut self, label: &str, deed: &str) -> anyhow::Result<String> {
        self.press(&format!("{label} …")).await?;
        let told =
            self.sees("the consequences", "document.querySelector('dialog[open] ul')?.innerText").await?;
        self.press(deed).await?;
        Ok(told.as_str().unwrap_or_default().to_owned())
    }

    /// Updates to a version with the page's dialog.
    pub(crate) async fn update(&mut self, version: &str) -> anyhow::Result<String> {
        self.press("Update …").await?;
        self.sees("the dialog", "document.querySelector('dialog[open] #version')").await?;
        self.tab.press("#version").await?;
        self.tab.enter(version).await?;
        let told = format!("document.querySelector('dialog ul').innerText.includes({})", json!(version));
        self.sees("the consequences", &told).await?;
        let told = self.text_of("dialog ul").await?;
        self.press("Update").await?;
        self.sees("the dialog gone", "!document.querySelector('dialog')").await?;
        Ok(told)
    }

    /// From now on the tones of the service's mark are noted.
    pub(crate) async fn note_tones(&mut self) -> anyhow::Result<()> {
        self.tab.evaluate(NOTE_TONES).await.map(drop)
    }

    /// The tones that were noted, in order.
    pub(crate) async fn tones(&mut self) -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value(self.tab.evaluate("window.tones").await?)?)
    }

    /// Waits until the service's mark has this word, and tells its tone.
    pub(crate) async fn marked(&mut self, word: &str) -> anyhow::Result<String> {
        let chip = "document.querySelector('h1 .chip')";
        let is_so = format!("{chip}?.innerText.includes({}) && {chip}.className", json!(word));
        let tone = self.sees(&format!("the mark {word}"), &is_so).await?;
        Ok(tone.as_str().unwrap_or_default().replace("chip ", ""))
    }

    /// Nothing was told as an error, neither by the page nor by its policy.
    pub(crate) fn is_content(&self) {
        assert_eq!(self.tab.complaints(), [""; 0]);
    }

    /// The same, where the daemon had to refuse something or was not there: then the browser notes that.
    pub(crate) fn complains_of_answers_alone(&self) {
        let others: Vec<&String> =
            self.tab.complaints().iter().filter(|told| !told.starts_with("network: ")).collect();
        assert!(others.is_empty(), "{others:?}");
    }

    /// Pictures of what is shown, as on a desk and in a hand, by day and by night.
    pub(crate) async fn pictures(&mut self, name: &str) -> anyhow::Result<()> {
        for (screen, width, height) in [("desktop", 1280, 900), ("phone", 390, 844)] {
            for (light, scheme) in [("light", Scheme::Light), ("dark", Scheme::Dark)] {
                self.tab.screen(width, height, scheme).await?;
                let wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
                assert_eq!(self.tab.evaluate(wide).await?, json!(false), "{name} is too wide for {screen}");
                let file = pictures().join(format!("{name}-{screen}-{light}.png"));
                // A dialog lies over what is seen, and the rest of the page cannot be reached.
                let covered = self.tab.evaluate("document.querySelector('dialog[open]') !== null").await?;
                match covered == json!(true) {
                    true => self.tab.picture(&file).await?,
                    false => self.tab.whole_picture(&file).await?,
                }
            }
        }
        self.tab.screen(1280, 900, Scheme::Light).await
    }

    /// Nobody is kept out: no serious finding of axe, by day and by night, on a desk and in a hand. And nobody else is asked
    /// for anything.
    pub(crate) async fn is_usable(&mut self) -> anyhow::Result<()> {
        let axe = tools().await?.join("axe-core/axe.min.js");
        let script = std::fs::read_to_string(axe)?;
        self.tab.evaluate(&format!("{script}; void 0")).await?;
        for (width, scheme) in
            [(1280, Scheme::Light), (1280, Scheme::Dark), (390, Scheme::Light), (390, Scheme::Dark)]
        {
            self.tab.screen(width, 900, scheme).await?;
            let found = self.tab.evaluate(AXE).await?;
            assert_eq!(found, json!([]), "{width} {scheme:?}: {found:#}");
        }
        let elsewhere = self.tab.evaluate(ELSEWHERE).await?;
        assert_eq!(elsewhere, json!([]), "asked of others");
        self.tab.screen(1280, 900, Scheme::Light).await
    }
}

/// Where the tools are installed.
pub(crate) async fn tools() -> anyhow::Result<PathBuf> {
    let runtime = runtime().await?;
    runtime.packages(&TOOLS, &openclaw::cache().join("page"), INSTALL).await
}

/// A node to run them with.
pub(crate) async fn runtime() -> anyhow::Result<Runtime> {
    Runtime::kept_in(&openclaw::cache(), INSTALL).await
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target directory").to_owned()
}

/// Where pictures are left.
pub(crate) fn pictures() -> PathBuf {
    let place = target().join("page");
    std::fs::create_dir_all(&place).expect("the target directory is ours");
    place
}
