//! The preflight act: everything that is looked at before anything stops, and what weighs how much here.

use super::repairing::{Patient, Visit};
use super::{Executor, Outcome, blocking, chain, fault};
use super::{Proof, Prover};
use crate::config::{self, PluginSettings, SourceSettings};
use crate::predecessor::{Predecessor, Record};
use crate::preflight::{self, Children, Code, Host, Service, Stop, Told, Tree, Use};
use crate::store::{Need, snapshot};
use crate::supervisor::{self, Launch, Live};
use cutover_core::{
    Checked, DataClass, Done, Fault, Finding, Installed, Instance, Level, ReleaseRule, Seen, Settings,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// How often what seems wrong with the machine is looked at before it is told, and how long is waited in between.
const LOOKS: u32 = 3;
const AGAIN: Duration = Duration::from_millis(300);

/// Reading a large tree takes memory: one at a time in a daemon. Held until the look is really over, which is at once where
/// nobody wants to know any more.
static ONE: Mutex<()> = Mutex::const_new(());

/// What was found, and what becomes of the data if the target was asked about it.
pub(in super::super) struct Looked {
    pub findings: Vec<Finding>,
    pub class: Option<DataClass>,
}

impl Looked {
    fn only(finding: Finding) -> Self {
        Self { findings: vec![finding], class: None }
    }
}

impl Executor {
    /// Looks for what would break, while the old version still serves.
    pub(super) async fn preflight(
        &self,
        visit: Visit<'_>,
        target: &Installed,
        source: Option<&Installed>,
        settings: &Settings,
    ) -> Outcome {
        let Looked { findings, class } = self.findings(target, source, Some(visit), settings).await?;
        let (setup, declared) = (self.site.setup(), Some(self.site.declared()));
        Ok(Done::Checked(Checked { findings, class, setup, declared }))
    }

    /// What a person should know, and what would keep the release from working, weighed by the service's own policy. What is
    /// mended is kept for the run whose look it is; a plan keeps nothing.
    pub(in super::super) async fn findings(
        &self,
        target: &Installed,
        source: Option<&Installed>,
        visit: Option<Visit<'_>>,
        settings: &Settings,
    ) -> Result<Looked, Fault> {
        self.after_sweeping().await;
        self.succession(target)?;
        let generation = target.generation;
        // In any case, however lately it was read.
        let read = self.read_whole(generation, Duration::ZERO).await;
        read.map_err(|fault| Fault { code: "preflight".into(), ..fault })?;
        let root = self.site.store.root(generation).map_err(chain("store"))?;
        let entry = self.site.entry(&root);
        if !entry.is_file() {
            let text = format!("the release has no {}; see `command` and `entry`", entry.display());
            return Ok(Looked::only(Finding::new(Level::Block, "entry", text)));
        }
        let launch = self
            .site
            .launch(generation, "preflight".into())
            .map_err(|error| fault("preflight", format!("{error:#}")))?;
        if let Some(problem) = config::run_by(&launch.program) {
            return Ok(Looked::only(Finding::new(Level::Block, "command", problem)));
        }
        // What was current once has proven itself; on the way back it is not held against what is being left.
        let is_way_back = source.is_some_and(|source| target.generation < source.generation);
        let mut findings = self.notes(source).await?;
        let without = without(&self.site.settings.plugins, target, source);
        let level = if is_way_back { Level::Note } else { Level::Warn };
        findings.extend(without.into_iter().map(|text| Finding::new(level, "plugins", text)));
        findings.extend(self.seats_as(level, target).await?);
        findings.extend(self.room().await?);
        findings.push(self.foreseen(target, source, settings.policy.rehearse).await?);
        let mut class = None;
        if !is_way_back {
            findings.extend(self.looked(target, source, &launch, &entry).await?);
            let validated = self.validated(target, source, &launch).await?;
            let patient = Patient { target, source, launch: &launch, visit, policy: &settings.policy };
            let (validated, mended) = self.mended_findings(&patient, validated).await?;
            findings.extend(validated);
            if let Some(told) = self.asked_about_data(target, &launch).await? {
                findings.extend(told.findings);
                class = Some(told.class);
            }
            class = class.max(mended);
        }
        findings.extend(self.shortened_soak(settings, class));
        Ok(Looked { findings: config::weighed(findings, &self.site.settings.preflight), class })
    }

    /// What a start does to seats. On the way back nothing of it is held against what was current once.
    async fn seats_as(&self, level: Level, target: &Installed) -> Result<Vec<Finding>, Fault> {
        match self.seats_foreseen(target).await {
            Ok(findings) if level == Level::Note => {
                Ok(findings.into_iter().map(|finding| Finding { level, ..finding }).collect())
            }
            Err(fault) if level == Level::Note => Ok(vec![Finding::new(level, "plugins", fault.detail)]),
            told => told,
        }
    }

    /// What follows from the settings alone.
    async fn notes(&self, source: Option<&Installed>) -> Result<Vec<Finding>, Fault> {
        let note = |kind: &str, text: &str| Finding::new(Level::Note, kind, text);
        let mut findings = vec![note("profile", &format!("the proof is {}", self.site.profile()))];
        if self.site.settings.state.is_empty() {
            findings
                .push(note("data", "no state is declared: nothing is copied and nothing can be restored"));
        } else {
            let paths = self.site.state_paths();
            let snapshots = self.site.snapshots();
            let looked = tokio::task::spawn_blocking(move || super::data::look(&paths, &snapshots)).await;
            findings.extend(looked.expect("BUG: looking at the state panicked")?);
        }
        findings.extend(self.site.uncovered.as_deref().map(uncovered));
        if source.is_none() {
            findings.push(note("first", "first installation: there is no version to go back to"));
        }
        if !self.site.has_front() {
            findings.push(note("front", "no `listen`: requests are not held, maintenance means stopped"));
        }
        Ok(findings)
    }

    /// That the soak cannot last as long as it should: requests wait for its end.
    fn shortened_soak(&self, settings: &Settings, class: Option<DataClass>) -> Option<Finding> {
        let policy = settings.told(class).policy;
        let soak = self.soak(&policy, false);
        let is_cut = self.site.has_front() && policy.release != ReleaseRule::AfterProve && policy.soak > soak;
        let text = format!(
            "the traffic is let through after the soak, which is cut to {soak:?}: half of the hold limit"
        );
        is_cut.then(|| Finding::new(Level::Note, "soak", text))
    }

    /// Whether what is still to be written will fit. The release itself has been measured before it was fetched.
    async fn room(&self) -> Result<Vec<Finding>, Fault> {
        let (paths, snapshots) = (self.site.state_paths(), self.site.snapshots());
        let place =
            |name: &str, path: PathBuf| Use { name: name.into(), path, need: Need::Unknown, files: 0 };
        let mut uses = vec![
            place("the daemon's state", self.site.layout.state.clone()),
            place("the service's log", self.site.directory().join("logs")),
        ];
        let looked = blocking("state", move || {
            // Without declared state there is nothing to copy.
            if !paths.is_empty() {
                let space = snapshot::space(&paths, &snapshots)?;
                uses.extend(space.needs.into_iter().map(|need| Use {
                    need: Need::Measured(need.needed.bytes),
                    files: need.needed.files,
                    ..place("copies of declared state", need.path)
                }));
            }
            Ok::<_, snapshot::Error>(preflight::host(&Host { uses, ..Host::default() }))
        });
        looked.await
    }

    /// What the tree and the machine themselves show.
    async fn looked(
        &self,
        target: &Installed,
        source: Option<&Installed>,
        launch: &Launch,
        entry: &Path,
    ) -> Result<Vec<Finding>, Fault> {
        let tree = |installed: &Installed| Tree::sealed(&self.site.store, installed.generation);
        let target = tree(target).map_err(chain("store"))?;
        let running = source.map(tree).transpose().map_err(chain("store"))?;
        // Given up with this act, wherever that is: the end of what is begun here hangs on it.
        let (_interest, stop) = Stop::pair().map_err(chain("preflight"))?;
        let children = Children {
            executable: self.site.executable.clone(),
            interpreter: self.interpreter(launch),
            identity: self.site.identity.as_ref().map(crate::store::Identity::from),
            scratch: self
                .site
                .passable("preflight")
                .map_err(|error| fault("preflight", format!("{error:#}")))?,
            env: launch.env.clone(),
            limit: preflight::CHILD,
            limit_all: preflight::CHILDREN,
            stop,
        };
        let code = Code {
            entries: entry.strip_prefix(&target.package).map(Path::to_owned).into_iter().collect(),
            cache: Some(self.site.directory().join("imports.cache")),
        };
        let mut findings = self.host(&target, source, launch, entry).await?;
        let context = (source.is_some(), children.interpreter.is_some());
        let one = ONE.lock().await;
        let looked = tokio::task::spawn_blocking(move || {
            let _one = one;
            clear(&children.scratch);
            preflight::release(&target, running.as_ref(), &code, &children)
        });
        findings.extend(looked.await.expect("BUG: the preflight panicked"));
        Ok(findings.into_iter().map(|finding| tempered(finding, context)).collect())
    }

    /// The node that runs the service, if one does.
    fn interpreter(&self, launch: &Launch) -> Option<PathBuf> {
        let is_node = launch.program.file_name().is_some_and(|name| name == "node")
            || self.site.settings.node.as_ref() == Some(&launch.program);
        is_node.then(|| launch.program.clone())
    }

    /// What the machine shows. A process of ours may be born while it is looked at: a stranger is looked at again.
    async fn host(
        &self,
        target: &Tree,
        source: Option<&Installed>,
        launch: &Launch,
        entry: &Path,
    ) -> Result<Vec<Finding>, Fault> {
        let mut running = self.running().await?;
        let mut ours = family(&running)?;
        let version = self.version_told(source, running).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut siblings = self.siblings().await;
            siblings.extend(self.predecessor()?);
            let surroundings = self.surroundings(target, launch, entry);
            let host = Host { version: version.clone(), ours, siblings, ..surroundings };
            let looked = tokio::task::spawn_blocking(move || preflight::host(&host));
            let findings = looked.await.expect("BUG: looking at the machine panicked");
            let is_a_stranger = |finding: &Finding| {
                finding.level > Level::Note && matches!(finding.kind.as_str(), "port" | "supervisor")
            };
            if tries == LOOKS || !findings.iter().any(is_a_stranger) {
                return Ok(findings);
            }
            tokio::time::sleep(AGAIN).await;
            running = self.running().await?;
            ours = family(&running)?;
        }
    }

    /// Everything that this daemon's other services run. What of it cannot be told may be taken for a rival, which is a
    /// warning.
    async fn siblings(&self) -> Vec<Instance> {
        let own = self.site.directory();
        let services = below(own.parent().unwrap_or(&own)).into_iter().filter(|service| *service != own);
        let instances: Vec<PathBuf> =
            services.flat_map(|service| below(&service.join("instances"))).collect();
        let mut found = Vec::new();
        for directory in instances {
            // One that is just being started is looked at again with the stranger that it seems to be.
            if let Ok(supervisor::Adopted::Running(live)) =
                supervisor::adopt(&directory, Duration::ZERO).await
            {
                found.extend(family(&[live]).unwrap_or_default());
            }
        }
        found
    }

    /// Whoever serves here before us, as long as it does.
    fn in_charge(&self) -> Result<Option<Record>, Fault> {
        let record = Record::read(&self.site.directory()).map_err(chain("predecessor"))?;
        Ok(record.filter(Record::is_in_charge))
    }

    /// Who is about to hand the service over: no rival, and ended in time.
    fn predecessor(&self) -> Result<Vec<Instance>, Fault> {
        let Some(Record { predecessor: Predecessor { instance, .. }, .. }) = self.in_charge()? else {
            return Ok(Vec::new());
        };
        let mut family =
            supervisor::descendants(std::slice::from_ref(&instance), "").map_err(chain("supervisor"))?;
        family.push(instance);
        Ok(family)
    }

    /// Whoever serves before us is followed by its own version only: there would be no way back from another.
    fn succession(&self, target: &Installed) -> Result<(), Fault> {
        let Some(Record { predecessor: old, terms, .. }) = self.in_charge()? else { return Ok(()) };
        let name = &self.site.settings.name;
        if old.package.version == target.release.version {
            return Ok(());
        }
        let detail = format!(
            "pid {} still serves {name} as {}, and its take-over is not done: `{2} --apply` goes on with it, `{2} --undo` gives \
             it up",
            old.instance.pid, old.package.version, terms.command
        );
        Err(fault("predecessor", detail))
    }

    fn surroundings(&self, target: &Tree, launch: &Launch, entry: &Path) -> Host {
        let site = &self.site;
        let package = match &site.settings.source {
            SourceSettings::Npm { package, .. } => Some(package.clone()),
            SourceSettings::Directory { .. } => None,
        };
        let home = launch.env.get("HOME").map(PathBuf::from);
        let temporary = launch.env.get("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
        let state = site.settings.state.iter().map(|state| state.path.clone());
        Host {
            identity: site.identity.as_ref().map(crate::store::Identity::from),
            writable: state.clone().chain([temporary]).collect(),
            state: state.collect(),
            address: Some(site.address()),
            service: Some(Service {
                package,
                package_root: target.package.clone(),
                entry: entry.to_owned(),
                store: site.store.dir().to_owned(),
                units: Service::unit_directories(home.as_deref()),
            }),
            ..Host::default()
        }
    }

    /// What the running version says of itself. One that is not ready is asked nothing: an update may be its cure.
    async fn version_told(
        &self,
        source: Option<&Installed>,
        running: Vec<Live>,
    ) -> Result<Option<Told>, Fault> {
        let Some(source) = source else { return Ok(None) };
        let live = running.into_iter().find(|live| live.record.generation == source.generation);
        let Some(live) = live else { return Ok(None) };
        let Ok(mut prover) = Prover::new(self, live, source, Proof::Ready).await else { return Ok(None) };
        let mut told = None;
        for _ in 0..LOOKS {
            let seen = prover.look().await;
            if seen.ready.value() != Some(&true) {
                return Ok(None);
            }
            let answer = match seen.version {
                Seen::Yes { value, .. } => Ok(value),
                Seen::Missing { why, source, .. } => Err(format!("{why} ({source})")),
                Seen::NotApplicable { why } => Err(why),
            };
            let is_told = answer.is_ok();
            told = Some(Told { installed: source.release.version.clone(), answer });
            if is_told {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(told)
    }
}

/// That a rollback does not bring the configuration back.
fn uncovered(why: &str) -> Finding {
    let text = format!("not covered, since nobody could lay it back: the configuration: {why}");
    Finding::new(Level::Warn, "state", text).advised(
        "It is neither copied nor taken back: what a newer version writes to it stays after a rollback. Keep a copy of it, or have it \
         lie in the declared state",
    )
}

/// The plugins of the settings that a release goes without, and what goes with it: the version that runs now.
fn without(settings: &[PluginSettings], target: &Installed, source: Option<&Installed>) -> Vec<String> {
    let plugin_of = |installed: &Installed, package: &str| {
        installed.release.plugins.iter().find(|plugin| plugin.package == package).cloned()
    };
    let missing = settings.iter().filter(|plugin| plugin_of(target, &plugin.package).is_none());
    let told = |plugin: &PluginSettings| {
        let (package, wanted) = (&plugin.package, plugin.wanted.word());
        let running = match source.map(|source| plugin_of(source, package)) {
            Some(Some(running)) => format!("the running release has it in {}", running.version),
            Some(None) => "the running release does not have it either".to_owned(),
            None => "there is no running release".to_owned(),
        };
        let version = &target.release.version;
        format!("{version} goes without the plugin {package} (wanted: {wanted}); {running}")
    };
    missing.map(told).collect()
}

/// What lies in a directory; nothing, if that cannot be told.
fn below(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The live processes, who keeps them, and all that they started.
pub(super) fn family(running: &[Live]) -> Result<Vec<Instance>, Fault> {
    let mut found = Vec::new();
    for live in running {
        found.extend(live.keeper.clone());
        found.extend(live.descendants().map_err(chain("supervisor"))?);
        found.push(live.instance().clone());
    }
    Ok(found)
}

/// What may be a false alarm here is no block, unless the service's own policy makes it one: facts that the proof after
/// the cut looks at anyway, what has nothing to be compared with, and rules of node for what node does not run.
pub(super) fn tempered(finding: Finding, (is_compared, is_node): (bool, bool)) -> Finding {
    let is_doubtful = match finding.kind.as_str() {
        "version" | "empty" => true,
        "access" => is_compared,
        "configuration" => !is_compared,
        "import" | "files" | "lock" | "native" => !is_compared || !is_node,
        _ => false,
    };
    let level = if is_doubtful { finding.level.min(Level::Warn) } else { finding.level };
    Finding { level, ..finding }
}

/// Homes of children that a killed daemon left.
fn clear(scratch: &Path) {
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        // What cannot be removed now is tried again the next time.
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PluginPolicy, PluginWanted};
    use cutover_core::{Generation, Plugin, Release};

    fn installed(number: u32, plugins: &[(&str, &str)]) -> Installed {
        let plugin = |(package, version): &(&str, &str)| Plugin {
            package: (*package).into(),
            version: (*version).into(),
            digest: "sha512-x".into(),
        };
        let release = Release {
            package: "app".into(),
            version: format!("{number}.0.0"),
            digest: "sha512-x".into(),
            plugins: plugins.iter().map(plugin).collect(),
        };
        Installed { generation: Generation(number), release }
    }

    #[test]
    fn a_plugin_that_a_release_goes_without_is_told_with_the_version_that_runs() {
        let wanted = |package: &str| PluginSettings {
            project: None,
            package: package.into(),
            wanted: PluginWanted::Channel("latest".into()),
            policy: PluginPolicy::Wanted,
            id: package.into(),
        };
        let settings = [wanted("a"), wanted("b"), wanted("c")];
        let (source, target) =
            (installed(1, &[("a", "1.1.0"), ("b", "1.2.0")]), installed(2, &[("a", "2.1.0")]));
        assert_eq!(
            without(&settings, &target, Some(&source)),
            [
                "2.0.0 goes without the plugin b (wanted: latest); the running release has it in 1.2.0",
                "2.0.0 goes without the plugin c (wanted: latest); the running release does not have it either",
            ]
        );
        let first = "2.0.0 goes without the plugin c (wanted: latest); there is no running release";
        assert_eq!(without(&settings[2..], &target, None), [first]);
        assert!(without(&settings[..1], &target, Some(&source)).is_empty());
    }

    #[test]
    fn without_a_comparison_or_node_a_missing_import_keeps_nobody_from_updating() {
        let block = || Finding::new(Level::Block, "import", "gone");
        assert_eq!(tempered(block(), (true, true)).level, Level::Block);
        assert_eq!(tempered(block(), (false, true)).level, Level::Warn);
        assert_eq!(tempered(block(), (true, false)).level, Level::Warn);
        let engines = Finding::new(Level::Block, "engines", "too old");
        assert_eq!(tempered(engines, (false, true)).level, Level::Block);
        let note = Finding::new(Level::Note, "version", "told");
        assert_eq!(tempered(note, (true, true)).level, Level::Note);
    }
}
