//! A dry run: resolves, fetches and checks exactly what a run would, and says what it would do. Nothing is stopped,
//! nothing is switched.

use super::acts::{Executor, fault};
use super::inbox::Handle;
use crate::store;
use cutover_core::{
    Act, DataClass, DataOrder, Fault, Finding, Generation, Installed, Level, RestoreAfterRelease, State,
    Strategy, Ticket, Wanted, cutting_over,
};
use serde::{Deserialize, Serialize};

/// What an update would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The service.
    pub service: String,
    /// What serves now.
    pub before: Option<Installed>,
    /// What would be installed: already fetched and sealed.
    pub target: Option<Installed>,
    /// Whether there is nothing to do.
    pub already_current: bool,
    /// The acts past the cut, in order.
    pub acts: Vec<Act>,
    /// How the restart would be done.
    pub strategy: Strategy,
    /// What happens to declared data.
    pub data: DataClass,
    /// What would be proven, and what not.
    pub profile: String,
    /// Bytes that are needed and free, in words.
    pub space: String,
    /// Warnings and notes.
    pub findings: Vec<Finding>,
    /// What the target says is new in it.
    #[serde(default)]
    pub notes: Option<String>,
}

/// A sealed generation, with what its release says is new in it.
#[derive(Clone, Debug, Serialize)]
struct Kept {
    #[serde(flatten)]
    record: store::GenerationRecord,
    notes: Option<String>,
}

impl Plan {
    /// Whether an update would end at its preflight.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        Finding::any_blocks(&self.findings)
    }
}

impl Handle {
    /// Plans an update to `wanted`.
    ///
    /// # Errors
    /// The fault that a run would end with before the cut.
    pub async fn plan(&self, wanted: Wanted) -> Result<Plan, Fault> {
        let view = self.view();
        if let Some(run) = view.state().open_run() {
            // As an update would be refused: with what ends the run, where something does.
            let refused = view.orders.get("update").cloned().flatten();
            let why = refused
                .unwrap_or_else(|| format!("run {run} is under way; `{}` shows it", self.status_line()));
            return Err(fault("already_running", why));
        }
        let served = super::acts::served(view.state());
        self.executor.plan(&self.service, view.state(), served.as_ref(), wanted).await
    }

    /// What a person types to see what this service does.
    pub(super) fn status_line(&self) -> String {
        self.executor.site.layout.command(&format!("status {}", self.service))
    }
}

impl Executor {
    async fn plan(
        &self,
        service: &str,
        state: &State,
        served: Option<&super::acts::Served>,
        wanted: Wanted,
    ) -> Result<Plan, Fault> {
        let before = state.current.clone();
        let settings = self.site.settings.for_run();
        let mut plan = Plan {
            service: service.to_owned(),
            before: before.clone(),
            target: None,
            already_current: false,
            acts: cutting_over(&settings, &DataOrder::Keep),
            strategy: settings.strategy,
            data: settings.class,
            profile: self.site.profile(),
            space: String::new(),
            findings: Vec::new(),
            notes: None,
        };
        let resolved = self.resolved(&wanted).await?;
        if self.is_current(&resolved.release, served, &settings.policy).await? {
            plan.already_current = true;
            plan.target = before;
            return Ok(plan);
        }
        if let Wanted::Channel(channel) = &wanted {
            self.follows(channel, &resolved, &state.skipped)?;
        }
        plan.space = self.space(&resolved).await?;
        let ticket = Ticket { run: cutover_core::RunId("plan".into()), act: Act::Stage, round: 0 };
        let target = self.staged(&ticket, &resolved.release).await?;
        plan.notes = self.news(target.generation).await?;
        let looked = self.findings(&target, before.as_ref(), None, &settings).await?;
        let told = settings.told(looked.class);
        (plan.findings, plan.data) = (looked.findings, told.class);
        plan.acts = cutting_over(&told, &DataOrder::Keep);
        if plan.data == DataClass::Migrated {
            let text = match told.policy.restore_after_release {
                RestoreAfterRelease::Refused => {
                    "the data counts as migrated: after the release a rollback needs a person's word"
                }
                RestoreAfterRelease::Allowed => {
                    "the data counts as migrated: a rollback after the release gives up what was written since, by itself"
                }
            };
            plan.findings.push(Finding::new(Level::Note, "data", text));
        }
        plan.target = Some(target);
        Ok(plan)
    }

    async fn news(&self, generation: Generation) -> Result<Option<String>, Fault> {
        let store = self.site.store.clone();
        super::acts::blocking("store", move || Ok::<_, store::Error>(store.notes(&store.record(generation)?)))
            .await
    }

    async fn space(&self, resolved: &store::Resolved) -> Result<String, Fault> {
        let source = self.site.source().map_err(super::acts::chain("store"))?;
        let (store, resolved) = (self.site.store.clone(), resolved.clone());
        let space = super::acts::blocking("space", move || store.space(&source, &resolved)).await?;
        let words = format!("needs {}, {} are free", space.need, store::Size(space.free));
        space.check().map_err(super::acts::chain("no_space"))?;
        Ok(words)
    }
}

impl Handle {
    /// All sealed generations, as JSON, oldest first. Those that go with the end of a run are gone by then.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn generations(&self) -> Result<serde_json::Value, Fault> {
        self.after_sweeping().await;
        let store = &self.executor.site.store;
        let records = store.generations().map_err(super::acts::chain("store"))?.into_iter();
        let kept: Vec<Kept> = records.map(|record| Kept { notes: store.notes(&record), record }).collect();
        let current = store.current().map_err(super::acts::chain("store"))?;
        Ok(serde_json::json!({ "current": current, "generations": kept }))
    }

    /// In what a sealed generation differs from another one.
    ///
    /// # Errors
    /// If there is no such generation.
    pub fn difference(&self, from: Generation, to: Generation) -> Result<store::Difference, Fault> {
        self.executor.site.store.difference(from, to).map_err(super::acts::chain("store"))
    }

    /// The release that is sealed in a generation.
    ///
    /// # Errors
    /// If there is no such generation.
    pub fn installed(&self, generation: Generation) -> Result<Installed, Fault> {
        let record = self.executor.site.store.record(generation).map_err(super::acts::chain("store"))?;
        Ok(Installed { generation, release: record.release })
    }
}
