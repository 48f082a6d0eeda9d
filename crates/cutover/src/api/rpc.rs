//! The methods. One dispatch for every transport.

use super::logs;
use crate::conductor::{Expected, Handle};
use cutover_core::{DataWish, Generation, Hold, Installed, Order, PlanId, Refusal, RunId, Wanted};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The services that can be asked.
pub struct Registry {
    /// Their conductors, by name.
    pub services: BTreeMap<String, Handle>,
    /// Services that could not be begun, and why.
    pub broken: BTreeMap<String, String>,
    /// The channel that each service follows.
    pub channels: BTreeMap<String, String>,
    /// Where each service's directory lies.
    pub directories: BTreeMap<String, PathBuf>,
}

/// A method that could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A stable word.
    pub code: String,
    /// What happened and what to do next.
    pub message: String,
    /// The refusal, where it is one.
    pub refusal: Option<Refusal>,
}

impl Failure {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), refusal: None }
    }

    /// As the wire has it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "code": self.code, "message": self.message, "refusal": self.refusal })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::AlreadyRunning { .. } | Refusal::Preparing { .. } | Refusal::Awaiting { .. } => {
                "already_running"
            }
            Refusal::PastTheCut { .. } => "past_the_cut",
            _ => "refused",
        };
        Self { code: code.into(), message: refusal.to_string(), refusal: Some(refusal) }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Params {
    service: Option<String>,
    version: Option<String>,
    channel: Option<String>,
    generation: Option<Generation>,
    data: Option<DataWish>,
    run_id: Option<RunId>,
    recover: Option<Recovery>,
    plan: Option<PlanId>,
    hold: bool,
    actor: Option<String>,
    expected: Expected,
    limit: Option<usize>,
    instance: Option<usize>,
    to: Option<Generation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Recovery {
    Retry,
    Rollback,
    Accept,
}

impl Registry {
    /// Answers one call. `actor` is who asks, for the record.
    ///
    /// # Errors
    /// [`Failure`], which says what to do next.
    pub async fn call(&self, method: &str, params: Value, actor: &str) -> Result<Value, Failure> {
        let params: Params = match params {
            Value::Null => Params::default(),
            other => serde_json::from_value(other)
                .map_err(|error| Failure::new("invalid_params", error.to_string()))?,
        };
        let actor = params.actor.clone().map_or_else(|| actor.to_owned(), |name| format!("{actor}:{name}"));
        match method {
            "health" => Ok(json!({ "ok": true, "version": env!("CARGO_PKG_VERSION") })),
            "status" => self.status(params.service.as_deref()),
            "update.status" => self.update_status(&params),
            "update.plan" => self.plan(&params).await,
            "update.run" => {
                let wanted = self.wanted(&params)?;
                let hold = if params.hold { Hold::Asked } else { Hold::AsRuled };
                self.order(&params, Order::Update { wanted, hold }, actor).await
            }
            "update.rollback" => {
                let order = self.rollback(&params)?;
                self.order(&params, order, actor).await
            }
            "update.cancel" => self.order(&params, Order::Cancel, actor).await,
            "update.hold" => self.order(&params, Order::Hold, actor).await,
            "update.approve" => {
                let plan = self.plan_to_approve(&params)?;
                self.order(&params, Order::Approve { plan }, actor).await
            }
            "update.recover" => {
                let order = match params.recover {
                    Some(Recovery::Retry) => Order::Retry,
                    Some(Recovery::Rollback) => Order::RecoverRollback,
                    Some(Recovery::Accept) => Order::Accept,
                    None => {
                        return Err(Failure::new(
                            "invalid_params",
                            "say `recover`: retry, rollback or accept",
                        ));
                    }
                };
                self.order(&params, order, actor).await
            }
            "update.runs.list" => {
                let mut runs = self.service(&params)?.view().runs();
                runs.truncate(params.limit.unwrap_or(50));
                Ok(json!({ "runs": runs }))
            }
            "update.runs.get" => self.run(&params),
            "service.start" => self.order(&params, Order::Start, actor).await,
            "service.stop" => self.order(&params, Order::Stop, actor).await,
            "service.restart" => self.order(&params, Order::Restart, actor).await,
            "generations.list" => {
                let listed = self.service(&params)?.generations().await;
                listed.map_err(|fault| Failure::new(&fault.code, fault.detail))
            }
            "generations.diff" => self.difference(&params),
            "versions.available" => self.available(&params).await,
            "logs.tail" => self.tail(&params),
            other => Err(Failure::new("unknown_method", format!("there is no method `{other}`"))),
        }
    }

    /// Methods that `call` knows, for a hello.
    #[must_use]
    pub fn methods() -> &'static [&'static str] {
        &[
            "health",
            "status",
            "update.status",
            "update.plan",
            "update.run",
            "update.rollback",
            "update.cancel",
            "update.hold",
            "update.approve",
            "update.recover",
            "update.runs.list",
            "update.runs.get",
            "service.start",
            "service.stop",
            "service.restart",
            "generations.list",
            "generations.diff",
            "versions.available",
            "logs.tail",
        ]
    }

    /// The service of this name.
    ///
    /// # Errors
    /// There is none, or it could not be begun.
    pub(super) fn named(&self, name: &str) -> Result<&Handle, Failure> {
        self.service(&Params { service: Some(name.to_owned()), ..Params::default() })
    }

    /// One service; the only one, if none is named.
    fn service(&self, params: &Params) -> Result<&Handle, Failure> {
        let name = match (&params.service, self.services.len() + self.broken.len()) {
            (Some(name), _) => name,
            (None, 1) => match self.services.keys().chain(self.broken.keys()).next() {
                Some(name) => name,
                None => return Err(Failure::new("unknown_service", "no service is configured")),
            },
            (None, 0) => {
                return Err(Failure::new(
                    "unknown_service",
                    "no service is configured; see `cutover config schema`",
                ));
            }
            (None, _) => {
                let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
                return Err(Failure::new(
                    "invalid_params",
                    format!("name one of the services: {}", names.join(", ")),
                ));
            }
        };
        if let Some(why) = self.broken.get(name) {
            return Err(Failure::new("broken_service", format!("{name} could not be begun: {why}")));
        }
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
            Failure::new(
                "unknown_service",
                format!("there is no service `{name}`; there are: {}", names.join(", ")),
            )
        })
    }

    fn wanted(&self, params: &Params) -> Result<Wanted, Failure> {
        let name = &self.service(params)?.service;
        let channel = || self.channels.get(name).cloned().unwrap_or_else(|| "latest".into());
        Ok(match (&params.version, &params.channel) {
            (Some(version), None) => Wanted::Version(version.clone()),
            (None, Some(channel)) => Wanted::Channel(channel.clone()),
            (None, None) => Wanted::Channel(channel()),
            (Some(_), Some(_)) => {
                return Err(Failure::new("invalid_params", "name a version or a channel, not both"));
            }
        })
    }

    async fn order(&self, params: &Params, order: Order, actor: String) -> Result<Value, Failure> {
        let service = self.service(params)?;
        let accepted = service.order(order, actor, params.expected.clone()).await?;
        let view = service.view();
        let Some(report) = accepted.run.as_ref().and_then(|run| view.run(run)) else {
            // No run was begun, so there is no verdict to tell: least of all that of the run before.
            return Ok(json!({
                "accepted": true,
                "service": service.service,
                "runId": null,
                "condition": view.report.condition,
                "serving": view.report.serving,
            }));
        };
        Ok(json!({
            "accepted": true,
            "ok": report.ok,
            "service": service.service,
            "runId": accepted.run,
            "status": report.status,
            "phase": report.phase,
            "report": report,
        }))
    }

    fn rollback(&self, params: &Params) -> Result<Order, Failure> {
        let view = self.service(params)?.view();
        let state = view.state();
        let previous = state.previous.as_ref().map(|kept| kept.installed.clone());
        let to: Installed = match params.generation {
            // Where nothing is kept the order names what is current: why that is no way back, the state says.
            None => previous.or_else(|| state.current.clone()).ok_or(Refusal::NothingKept)?,
            Some(generation) => self
                .service(params)?
                .installed(generation)
                .map_err(|fault| Failure::new(&fault.code, fault.detail))?,
        };
        Ok(Order::Rollback { to, data: params.data.unwrap_or(DataWish::Keep) })
    }

    /// What is approved must be named: whoever approves has looked at it.
    fn plan_to_approve(&self, params: &Params) -> Result<PlanId, Failure> {
        if let Some(plan) = &params.plan {
            return Ok(plan.clone());
        }
        let view = self.service(params)?.view();
        let message = match view.report.awaits.as_ref().filter(|awaits| awaits.plan.is_some()) {
            Some(awaits) => format!(
                "say what is approved: {} The command is `{}`",
                view.report.sentence,
                awaits.commands.join("` or `")
            ),
            None => format!(
                "say what is approved: `plan`; {} waits for no approval now, as its status says",
                view.service
            ),
        };
        Err(Failure::new("invalid_params", message))
    }

    async fn plan(&self, params: &Params) -> Result<Value, Failure> {
        let wanted = self.wanted(params)?;
        match self.service(params)?.plan(wanted).await {
            Ok(plan) => Ok(serde_json::to_value(plan).expect("a plan is plain data")),
            Err(fault) if fault.code == "already_running" => Err(Failure::new(&fault.code, fault.detail)),
            // It fails the same way as the run would.
            Err(fault) => Err(Failure::new("plan_failed", format!("{}: {}", fault.code, fault.detail))),
        }
    }

    fn status(&self, service: Option<&str>) -> Result<Value, Failure> {
        if service.is_some() {
            let params = Params { service: service.map(str::to_owned), ..Params::default() };
            let view = self.service(&params)?.view();
            return Ok(serde_json::to_value(view).expect("a view is plain data"));
        }
        let views: Vec<_> = self.services.values().map(Handle::view).collect();
        Ok(json!({ "services": views, "broken": self.broken }))
    }

    /// As a client that pressed "update" polls it: the run under way and the last one.
    fn update_status(&self, params: &Params) -> Result<Value, Failure> {
        let view = self.service(params)?.view();
        let open = view.state().open_run().cloned();
        let active = open.as_ref().and_then(|run| view.run(run));
        let last = view.runs().into_iter().find(|report| report.run_id != open);
        Ok(
            json!({ "activeRun": active, "lastRun": last, "service": view.report.service, "serving": view.report.serving }),
        )
    }

    fn run(&self, params: &Params) -> Result<Value, Failure> {
        let run =
            params.run_id.as_ref().ok_or_else(|| Failure::new("invalid_params", "name the run: `runId`"))?;
        let mut found = self.services.values().filter_map(|service| service.view().run(run));
        let report =
            found.next().ok_or_else(|| Failure::new("unknown_run", format!("there is no run {run}")))?;
        Ok(serde_json::to_value(report).expect("a report is plain data"))
    }

    /// How a generation differs from the current one, or from another that is named.
    fn difference(&self, params: &Params) -> Result<Value, Failure> {
        let service = self.service(params)?;
        let to = params.to.or_else(|| service.view().state().current_generation());
        let Some((from, to)) = params.generation.zip(to) else {
            return Err(Failure::new("invalid_params", "name two generations: `generation` and `to`"));
        };
        let difference =
            service.difference(from, to).map_err(|fault| Failure::new(&fault.code, fault.detail))?;
        Ok(serde_json::to_value(difference).expect("a difference is plain data"))
    }

    async fn available(&self, params: &Params) -> Result<Value, Failure> {
        let service = self.service(params)?;
        match service.available().await {
            Ok(available) => Ok(json!({ "available": available, "channel": service.view().channel })),
            Err(fault) if fault.code == "already_running" => Err(Failure::new(&fault.code, fault.detail)),
            Err(fault) => Err(Failure::new("source_silent", format!("{}: {}", fault.code, fault.detail))),
        }
    }

    fn tail(&self, params: &Params) -> Result<Value, Failure> {
        let name = &self.service(params)?.service;
        let directory = &self.directories[name];
        let (instance, limit) = (params.instance.unwrap_or(0), params.limit.unwrap_or(100));
        let tail = logs::tail_of(directory, instance, limit)
            .map_err(|error| Failure::new("no_log", format!("{}: {error}", directory.display())))?;
        Ok(serde_json::to_value(tail).expect("a tail is plain data"))
    }
}
