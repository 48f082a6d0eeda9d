//! Before anything stops: resolve, stage, look.

use super::super::alarm::CUT_OFF;
use super::super::inbox::{Progress, Unit};
use super::{Enough, Executor, Outcome, Proof, Prover, blocking, chain, fault};
use crate::config;
use crate::store;
use crate::supervisor::process;
use cutover_core::{
    Base, Done, Fault, Installed, Instance, Phase, Policy, Preparation, Release, Serving, State, Ticket,
    Wanted, Wish,
};
use std::time::Duration;

/// How long a tree that cannot be compared is looked at again before what serves is had anew.
const TREE: Duration = Duration::from_secs(5);

/// What an update to the same release would find in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Served {
    installed: Installed,
    /// The process that has proven itself once; `None` for a service that is kept stopped.
    instance: Option<Instance>,
}

/// What is current, and proven where it shall run. A release that crashes or lies in maintenance is not in order.
pub(in super::super) fn served(state: &State) -> Option<Served> {
    let in_maintenance = matches!(
        &state.phase,
        Phase::Maintenance(_) | Phase::Preparing(Preparation { base: Base::Maintenance(_), .. })
    );
    let instance = match &state.serving {
        Serving::Proven(instance) => Some(instance.clone()),
        Serving::Unproven | Serving::Waived(_) => None,
    };
    let in_order = state.wish == Wish::Stopped || instance.is_some();
    let installed = state.current.clone().filter(|_| in_order && !in_maintenance)?;
    Some(Served { installed, instance })
}

impl Executor {
    /// The exact release that is wanted.
    pub(super) async fn resolve(
        &self,
        wanted: &Wanted,
        served: Option<&Served>,
        skipped: &[Release],
        policy: &Policy,
    ) -> Outcome {
        if let Some(release) = self.imported(wanted)? {
            return Ok(Done::Resolved { release });
        }
        let resolved = self.resolved(wanted).await?;
        if self.is_current(&resolved.release, served, policy).await? {
            return Ok(Done::AlreadyCurrent { release: resolved.release });
        }
        if let Wanted::Channel(channel) = wanted {
            self.follows(channel, &resolved, skipped)?;
        }
        Ok(Done::Resolved { release: resolved.release })
    }

    /// The release of exactly this version that was imported from where it ran, and waits to be the first: no source is
    /// asked about what is there.
    fn imported(&self, wanted: &Wanted) -> Result<Option<Release>, Fault> {
        let (Wanted::Version(version), config::SourceSettings::Npm { package, .. }) =
            (wanted, &self.site.settings.source)
        else {
            return Ok(None);
        };
        let record = self.site.store.imported(package, version).map_err(chain("store"))?;
        Ok(record.map(|record| record.release))
    }

    /// Whether a release needs no update: it is what serves, and its process proves itself now. That it did so once is no
    /// answer; one that hangs is replaced by the run that was ordered. Fails where only its front is in the way, for which no
    /// service is restarted.
    pub(in super::super) async fn is_current(
        &self,
        release: &Release,
        served: Option<&Served>,
        policy: &Policy,
    ) -> Result<bool, Fault> {
        let Some(served) = served.filter(|served| served.installed.release == *release) else {
            return Ok(false);
        };
        let proven = async {
            // What is not known to be what was sealed is had anew.
            self.sealed_within(served.installed.generation, TREE).await?;
            let Some(instance) = &served.instance else { return Ok(()) };
            self.still_proven(&served.installed, instance, policy).await
        };
        match proven.await {
            Ok(()) => Ok(true),
            Err(fault) if fault.code == CUT_OFF => Err(fault),
            Err(fault) => {
                super::warn(self, "what serves is the wanted release and is not proven", &fault);
                Ok(false)
            }
        }
    }

    async fn still_proven(
        &self,
        installed: &Installed,
        instance: &Instance,
        policy: &Policy,
    ) -> Result<(), Fault> {
        let running = self.running().await?;
        let Some(live) = running.into_iter().find(|live| live.instance() == instance) else {
            return Err(fault("gone", format!("{instance} does not live any more")));
        };
        let mut prover = Prover::new(self, live, installed, Proof::Ready).await?;
        prover.only_looks();
        let enough = Enough::rounds(1, policy);
        tokio::select! {
            proven = prover.until_proven(&enough, policy.start_deadline, None) => proven.map(drop),
            // Nobody drops this look at its end, as an act is dropped.
            ended = process::ended(instance) => ended.map_err(chain(super::UNTOLD)).and_then(|()| {
                Err(fault("gone", format!("{instance} has ended while it was looked at")))
            }),
        }
    }

    /// A channel is followed forwards only, and not to what was reverted here: both take a person who names the version.
    pub(in super::super) fn follows(
        &self,
        channel: &str,
        resolved: &store::Resolved,
        skipped: &[Release],
    ) -> Result<(), Fault> {
        let (version, name) = (&resolved.release.version, &self.site.settings.name);
        let command = self.site.layout.command(&format!("update {name} --to {version}"));
        let by_name = format!("`{command}` installs it anyway");
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
        let source = self.site.source().map_err(chain("store"))?;
        self.resolved_from(&source, wanted).await
    }

    async fn resolved_from(&self, source: &store::Source, wanted: &Wanted) -> Result<store::Resolved, Fault> {
        let wanted = match wanted {
            Wanted::Channel(channel) => store::Wanted::Channel(channel.clone()),
            Wanted::Version(version) => store::Wanted::Version(version.clone()),
        };
        self.site.store.resolve(source, &wanted).await.map_err(chain("resolve"))
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
        let source = self.site.source_of(release);
        let resolved = self.resolved_from(&source, &Wanted::Version(release.version.clone())).await?;
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
        let progress = move |store::Progress { phase, done, total }| {
            let (doing, unit) = match phase {
                store::Phase::Copy => ("copying", Unit::Bytes),
                store::Phase::Install => ("installing packages", Unit::Count),
                store::Phase::Hash => ("hashing", Unit::Bytes),
                store::Phase::Seal => ("sealing", Unit::Count),
            };
            shown.reporter.progress(Progress { ticket: of.clone(), doing: doing.into(), done, total, unit });
        };
        let generation = self.site.store.stage(&source, &resolved, progress).await.map_err(chain("stage"))?;
        self.tally.add(self.site.store.record(generation).map_err(chain("store"))?.bytes);
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
}
