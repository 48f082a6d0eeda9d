//! Before anything stops: resolve, stage, look.

use super::{Executor, Outcome, blocking, chain, fault};
use crate::config;
use crate::store;
use cutover_core::{
    Base, DataClass, Done, Fault, Installed, Phase, Preparation, Release, ReleaseRule, Serving, Settings,
    State, Ticket, Wanted, Wish,
};

/// The release that an update to it would find in order: current, and proven where it shall run. A release that crashes or
/// lies in maintenance is not "already current".
pub(in super::super) fn served(state: &State) -> Option<Release> {
    let in_maintenance = matches!(
        &state.phase,
        Phase::Maintenance(_) | Phase::Preparing(Preparation { base: Base::Maintenance(_), .. })
    );
    let in_order = state.wish == Wish::Stopped || matches!(state.serving, Serving::Proven(_));
    let current = state.current.as_ref().filter(|_| in_order && !in_maintenance)?;
    Some(current.release.clone())
}

impl Executor {
    /// The exact release that is wanted.
    pub(super) async fn resolve(
        &self,
        wanted: &Wanted,
        served: Option<&Release>,
        skipped: &[Release],
    ) -> Outcome {
        let resolved = self.resolved(wanted).await?;
        if served == Some(&resolved.release) {
            return Ok(Done::AlreadyCurrent { release: resolved.release });
        }
        if let Wanted::Channel(channel) = wanted {
            self.follows(channel, &resolved, skipped)?;
        }
        Ok(Done::Resolved { release: resolved.release })
    }

    /// A channel is followed forwards only, and not to what was reverted here: both take a person who names the version.
    pub(in super::super) fn follows(
        &self,
        channel: &str,
        resolved: &store::Resolved,
        skipped: &[Release],
    ) -> Result<(), Fault> {
        let (version, name) = (&resolved.release.version, &self.site.settings.name);
        let by_name = format!("`cutover update {name} --to {version}` installs it anyway");
        if skipped.contains(&resolved.release) {
            let detail = format!("{channel} names {version}, which failed here and was reverted: {by_name}");
            return Err(fault("skipped", detail));
        }
        let store = &self.site.store;
        let Some(current) = store.current().map_err(chain("store"))? else { return Ok(()) };
        let current = store.record(current).map_err(chain("store"))?;
        let at = |published: &Option<String>| published.as_ref()?.parse::<jiff::Timestamp>().ok();
        match (at(&current.published), at(&resolved.published)) {
            (Some(now), Some(then)) if then < now && current.release != resolved.release => {
                let now = &current.release.version;
                let detail =
                    format!("{channel} names {version}, published before the current {now}: {by_name}");
                Err(fault("downgrade", detail))
            }
            _ => Ok(()),
        }
    }

    pub(in super::super) async fn resolved(&self, wanted: &Wanted) -> Result<store::Resolved, Fault> {
        let wanted = match wanted {
            Wanted::Channel(channel) => store::Wanted::Channel(channel.clone()),
            Wanted::Version(version) => store::Wanted::Version(version.clone()),
        };
        self.site.store.resolve(&self.site.source(), &wanted).await.map_err(chain("resolve"))
    }

    /// Fetches and seals exactly the release that was frozen; a tag that moved since is not followed.
    pub(super) async fn stage(&self, ticket: &Ticket, release: &Release) -> Outcome {
        Ok(Done::Staged { installed: self.staged(ticket, release).await? })
    }

    /// The sealed generation of a release: one that is whole and was never current is used again, so that a fetch that a
    /// plan or a killed run has done is not done twice.
    pub(in super::super) async fn staged(
        &self,
        ticket: &Ticket,
        release: &Release,
    ) -> Result<Installed, Fault> {
        self.after_sweeping().await;
        if let Some(installed) = self.waiting(release).await? {
            return Ok(installed);
        }
        let resolved = self.resolved(&Wanted::Version(release.version.clone())).await?;
        if resolved.release != *release {
            let now = resolved.release.digest;
            return Err(fault(
                "release_changed",
                format!(
                    "{} {} was {} when it was resolved and is {now} now",
                    release.package, release.version, release.digest
                ),
            ));
        }
        let (shown, of) = (self.clone(), ticket.clone());
        let progress = move |progress: store::Progress| {
            shown.progress(
                &of,
                format!("{:?}", progress.phase).to_lowercase(),
                progress.done,
                progress.total,
            );
        };
        let generation =
            self.site.store.stage(&self.site.source(), &resolved, progress).await.map_err(chain("stage"))?;
        Ok(Installed { generation, release: release.clone() })
    }

    async fn waiting(&self, release: &Release) -> Result<Option<Installed>, Fault> {
        let (store, release) = (self.site.store.clone(), release.clone());
        blocking("store", move || {
            let Some(record) = store.generations()?.into_iter().next_back() else { return Ok(None) };
            let younger = store.current()?.is_none_or(|current| record.generation > current);
            let whole = younger && record.release == release && store.verify(record.generation).is_ok();
            Ok::<_, store::Error>(whole.then_some(Installed { generation: record.generation, release }))
        })
        .await
    }

    /// Looks for what would break, while the old version still serves.
    pub(super) async fn preflight(&self, target: &Installed, source: Option<&Installed>) -> Outcome {
        Ok(Done::Checked { findings: self.findings(target, source).await? })
    }

    /// What a person should know; what blocks is a fault.
    pub(in super::super) async fn findings(
        &self,
        target: &Installed,
        source: Option<&Installed>,
    ) -> Result<Vec<String>, Fault> {
        self.after_sweeping().await;
        let store = self.site.store.clone();
        let generation = target.generation;
        blocking("preflight", move || store.verify(generation)).await?;
        let root = self.site.store.root(generation).map_err(chain("store"))?;
        let entry = self.site.entry(&root);
        if !entry.is_file() {
            return Err(fault(
                "preflight",
                format!("the release has no {}; see `command` and `entry`", entry.display()),
            ));
        }
        let launch = self
            .site
            .launch(generation, "preflight".into())
            .map_err(|error| fault("preflight", format!("{error:#}")))?;
        if let Some(problem) = config::run_by(&launch.program) {
            return Err(fault("preflight", problem));
        }
        let mut findings = vec![
            "profile basic: plugins, a user's path and traffic (V7 to V9) are not part of the proof"
                .to_owned(),
        ];
        if self.site.settings.state.is_empty() {
            findings.push("no state is declared: nothing is copied and nothing can be restored".into());
        } else {
            let paths = self.site.state_paths();
            let snapshots = self.site.snapshots();
            let looked = tokio::task::spawn_blocking(move || super::data::look(&paths, &snapshots)).await;
            findings.extend(looked.expect("BUG: looking at the state panicked")?);
        }
        let policy = &self.site.settings.policy;
        if self.site.has_front()
            && policy.release == ReleaseRule::AfterSoak
            && policy.soak > self.soak(policy, false)
        {
            findings.push(format!(
                "the traffic is let through after the soak, which is cut to {:?}: half of the hold limit",
                self.soak(policy, false)
            ));
        }
        if source.is_none() {
            findings.push("first installation: there is no version to go back to".into());
        }
        if !self.site.has_front() {
            findings.push("no `listen`: requests are not held, maintenance means stopped".into());
        }
        Ok(findings)
    }

    /// The bulk of the snapshot, while the old version runs.
    pub(super) async fn warm(&self, ticket: &Ticket, settings: &Settings) -> Outcome {
        if settings.class == DataClass::None {
            return Ok(Done::Skipped { why: "the service tells no idleness; no state to copy".into() });
        }
        self.progress(ticket, "copying state while the old version runs", 0, None);
        self.warm_copy(&ticket.run).await
    }
}
