//! The update button of a service's own clients: OpenClaw's `update.*` calls, answered in the gateway's place. Knows their
//! wire, Order, Report and Refusal. Nothing else of the daemon can be reached from here, and no answer says `ok` before
//! the report does.

mod outcome;
mod row;

use super::rpc::Failure;
use crate::conductor::{Handle, Intercepted, Interceptor, View, wall_ms};
use cutover_core::{Hold, Kind, Order, Phase, Report, RunId, Wanted};
use cutover_front::{Claim, Claimed, EventPlace, Place, Say};
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// The scope that every `update.*` call needs, as in the gateway.
const SCOPE: &str = "operator.admin";
/// The first protocol of the clients that follow a run by its id; those before it wait for the one answer.
const FOLLOWING: u64 = 4;
/// Who asked, in the record of a run.
const ACTOR: &str = "button";
/// The event that tells clients what is available.
const NOTICE: &str = "update.available";
/// So many connections are told that a run moved on.
const AUDIENCE_MAX: usize = 256;

/// Answers one service's button.
pub struct Button {
    channel: String,
    root: PathBuf,
    calls: mpsc::UnboundedReceiver<Intercepted>,
}

impl Button {
    /// A button that updates along `channel`; `root` is told as the place of the installation. The interceptor is the
    /// conductor's.
    #[must_use]
    pub fn new(channel: &str, root: PathBuf) -> (Self, Interceptor) {
        let (sender, calls) = mpsc::unbounded_channel();
        (Self { channel: channel.to_owned(), root, calls }, Interceptor { claim: claim(None), calls: sender })
    }

    /// Answers what comes, until the conductor is gone.
    pub async fn attend(self, handle: Handle) {
        let Self { channel, root, mut calls } = self;
        let mut views = handle.watch();
        views.mark_changed();
        let claim = claim(None);
        let (waiting, audience) = (Vec::new(), Vec::new());
        let mut desk = Desk { handle, channel, root, claim, waiting, audience, told: None };
        loop {
            tokio::select! {
                call = calls.recv() => {
                    let Some(call) = call else { return };
                    desk.answer(call).await;
                }
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    views.borrow_and_update();
                }
            }
            let view = desk.handle.view();
            desk.follow(&view).await;
        }
    }
}

/// What is claimed, and what clients are told to be available: never what the gateway itself finds, which may be what was
/// taken back, and which the button would not install.
fn claim(available: Option<Value>) -> Claim {
    Claim {
        prefixes: vec!["update.".into()],
        hello: "connect".into(),
        scopes: "/payload/auth/scopes".into(),
        protocol: "/payload/protocol".into(),
        places: vec![Place { pointer: "/payload/snapshot/updateAvailable".into(), value: available.clone() }],
        events: vec![EventPlace {
            event: NOTICE.into(),
            place: Place { pointer: "/payload/updateAvailable".into(), value: available },
        }],
    }
}

/// What the button offers, in the words of the gateway's own notice.
fn available(view: &View) -> Option<Value> {
    let (available, current) = (view.available.as_ref()?, view.current.as_ref()?);
    Some(json!({
        "currentVersion": current.release.version,
        "latestVersion": available.version,
        "channel": available.channel,
    }))
}

/// Two generations of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Takes the one answer as the end of the update.
    Waits,
    /// Takes a run's id and follows it.
    Follows,
}

impl Client {
    fn of(claimed: &Claimed) -> Self {
        if claimed.protocol.is_some_and(|protocol| protocol >= FOLLOWING) {
            Self::Follows
        } else {
            Self::Waits
        }
    }
}

/// A client that waits for the end of a run.
struct Waiting {
    call: Intercepted,
    run: RunId,
}

/// Why a press began nothing.
struct Denial {
    reason: String,
    message: String,
}

impl Denial {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

struct Desk {
    handle: Handle,
    channel: String,
    root: PathBuf,
    /// What the front claims now.
    claim: Claim,
    waiting: Vec<Waiting>,
    /// Connections that follow runs.
    audience: Vec<Intercepted>,
    /// What the audience knows.
    told: Option<(RunId, &'static str, &'static str)>,
}

impl Desk {
    async fn answer(&mut self, call: Intercepted) {
        let client = Client::of(&call.claimed);
        if !call.claimed.scopes.iter().any(|scope| scope == SCOPE) {
            respond(&call, Err(missing_scope(client))).await;
            return;
        }
        if client == Client::Follows {
            self.admit(&call);
        }
        let view = self.handle.view();
        let method = call.claimed.call["method"].as_str().unwrap_or_default();
        let answer = match method {
            "update.run" => return self.press(call, client).await,
            "update.status" => Ok(self.status(&view, client)),
            "update.runs.list" => row::list(&view, &call.claimed.call["params"]),
            "update.runs.get" => row::get(&view, &call.claimed.call["params"]),
            "update.hold" => {
                Err(unavailable("updates are not scheduled by the gateway here: there is nothing to hold"))
            }
            "update.report" => {
                Err(unavailable("cutover's `show` on the gateway's machine has the whole report"))
            }
            other => Err(invalid(&format!("unknown method: {other}"))),
        };
        respond(&call, answer).await;
    }

    /// Somebody pressed it.
    async fn press(&mut self, call: Intercepted, client: Client) {
        match (self.run_for(&call.claimed).await, client) {
            (Err(denial), _) => {
                let current = self.handle.view().current.map(|current| current.release.version);
                let payload = outcome::denied(&denial.reason, &denial.message, current, &self.root);
                respond(&call, Ok(payload)).await;
            }
            (Ok(run), Client::Follows) => {
                let report = self.handle.view().run(&run);
                respond(&call, Ok(outcome::accepted(&run, report.as_ref(), &self.root))).await;
            }
            (Ok(run), Client::Waits) => {
                // The same call, brought again by another control connection.
                self.waiting.retain(|waiting| !is_same(&waiting.call, &call));
                self.waiting.push(Waiting { call, run });
            }
        }
    }

    /// The run that a press is answered with: the one under way, or a new one.
    async fn run_for(&self, claimed: &Claimed) -> Result<RunId, Denial> {
        let view = self.handle.view();
        if let Some(run) = view.state().open_run() {
            return joined(&view, run);
        }
        if !claimed.age.is_zero() {
            return ended_since(&view, claimed).ok_or_else(|| {
                Denial::new(
                    "interrupted",
                    "The updater was interrupted and no update is under way. Press the button again.",
                )
            });
        }
        if let Phase::Maintenance(_) = &view.state().phase {
            let commands = view.report.recovery.join(" or ");
            let message = format!("{}: {commands}", view.report.condition);
            return Err(Denial::new("maintenance", message));
        }
        let wanted = Wanted::Channel(self.channel.clone());
        let order = Order::Update { wanted, hold: Hold::AsRuled };
        match self.handle.order(order, ACTOR.into(), crate::conductor::Expected::default()).await {
            Ok(accepted) => accepted.run.ok_or_else(|| Denial::new("refused", "The order began no run.")),
            Err(refusal) => {
                // Somebody else was quicker.
                let view = self.handle.view();
                match view.state().open_run() {
                    Some(run) => joined(&view, run),
                    None => {
                        let failure = Failure::from(refusal);
                        Err(Denial::new(&failure.code, failure.message))
                    }
                }
            }
        }
    }

    /// What a client asks when it comes back, or when it is opened.
    fn status(&self, view: &View, client: Client) -> Value {
        let runs = view.runs();
        let open = view.state().open_run();
        let last = runs.iter().find(|report| report.trigger == Some(Kind::Update));
        let sentinel = last.filter(|report| report.ended.is_some());
        let sentinel = sentinel.map(|report| outcome::sentinel(report, &self.root));
        match client {
            Client::Waits => json!({ "sentinel": sentinel }),
            Client::Follows => json!({
                "sentinel": sentinel,
                "activeRun": open.and_then(|open| view.run(open)).map(|report| row::row(&report, view)),
                "lastRun": runs.iter().find(|report| report.ended.is_some()).map(|report| row::row(report, view)),
                "updateAvailable": available(view),
            }),
        }
    }

    /// Takes a connection among those that are told of every change.
    fn admit(&mut self, call: &Intercepted) {
        self.audience.retain(|known| known.origin() != call.origin());
        if self.audience.len() >= AUDIENCE_MAX {
            self.audience.remove(0);
        }
        self.audience.push(call.clone());
    }

    /// Does what a view asks for. What new connections are told to be available comes first: whoever is sent away by an
    /// answer comes back at once.
    async fn follow(&mut self, view: &View) {
        let claim = claim(available(view));
        if claim != self.claim {
            self.handle.claim(claim.clone()).await;
            self.claim = claim;
            // A page that stays open learns of a release, or that there is none any more, as from the gateway itself.
            self.announce(NOTICE, json!({ "updateAvailable": available(view) })).await;
        }
        self.settle(view).await;
        self.tell(view).await;
    }

    /// Answers those whose run has come to its end.
    async fn settle(&mut self, view: &View) {
        let mut ended = Vec::new();
        self.waiting = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter_map(|waiting| match view.run(&waiting.run) {
                Some(report) if !is_at_an_end(&report) => Some(waiting),
                report => {
                    ended.push((waiting.call, report));
                    None
                }
            })
            .collect();
        while let Some((call, report)) = ended.pop() {
            let payload = match report {
                Some(report) => outcome::outcome(&report, &self.root),
                None => {
                    outcome::denied("unknown_run", "The run is not on record any more.", None, &self.root)
                }
            };
            let others =
                ended.iter().map(|(call, _)| call).chain(self.waiting.iter().map(|other| &other.call));
            // The last answer of a connection ends it.
            let closes = !others.into_iter().any(|other| other.origin() == call.origin());
            say(&call, result(&call, Ok(payload)), closes).await;
        }
    }

    /// Tells the audience that a run moved on.
    async fn tell(&mut self, view: &View) {
        let Some(run) = &view.report.run_id else { return };
        let now = (run.clone(), row::phase(&view.report), row::status(&view.report));
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let payload = json!({
            "runId": run, "phase": now.1, "status": now.2, "updatedAtMs": row::updated(&view.report),
        });
        self.told = Some(now);
        self.announce("update.run.changed", payload).await;
    }

    /// Tells the audience an event. A connection that is gone is not of it any more.
    async fn announce(&mut self, event: &str, payload: Value) {
        let message = json!({ "type": "event", "event": event, "payload": payload });
        let told = std::mem::take(&mut self.audience).into_iter().map(async |listener| {
            let connection = listener.claimed.connection;
            let event = Say { connection, answers: None, message: message.clone(), closes: false };
            listener.say(event).await.then_some(listener)
        });
        self.audience = futures_util::future::join_all(told).await.into_iter().flatten().collect();
    }
}

/// Whether nothing more is to be waited for: it ended, or a person decides.
fn is_at_an_end(report: &Report) -> bool {
    report.ended.is_some() || report.phase == "parked" || report.awaits_a_person()
}

/// The run under way, if it does what the button would.
fn joined(view: &View, run: &RunId) -> Result<RunId, Denial> {
    let report = view.run(run);
    let version = report.as_ref().and_then(|report| report.version.as_ref());
    let is_update = report.as_ref().is_some_and(|report| report.trigger == Some(Kind::Update));
    let is_other = match (version, &view.available) {
        (Some(version), Some(available)) => *version != available.version,
        _ => false,
    };
    if is_update && !is_other {
        return Ok(run.clone());
    }
    let text = format!(
        "Run {run} is already under way and does something else: cutover's `status` on the gateway's machine shows what, and what ends it."
    );
    Err(Denial::new("already_running", text))
}

/// The update that ended since a call came which an earlier daemon left unanswered: it was this call's, begun or joined. One
/// that ended before is no answer, whatever it came to.
fn ended_since(view: &View, claimed: &Claimed) -> Option<RunId> {
    // Late by what the call took to get here: a run that is missed so is told as an interruption.
    let came = wall_ms().saturating_sub(u64::try_from(claimed.age.as_millis()).unwrap_or(u64::MAX));
    let runs = view.runs();
    let update = runs.iter().find(|report| report.trigger == Some(Kind::Update))?;
    update.run_id.clone().filter(|_| update.ended.is_some_and(|ended| ended >= came))
}

fn is_same(one: &Intercepted, other: &Intercepted) -> bool {
    one.origin() == other.origin() && one.claimed.call["id"] == other.claimed.call["id"]
}

fn invalid(message: &str) -> Value {
    json!({ "code": "INVALID_REQUEST", "message": message })
}

fn unavailable(message: &str) -> Value {
    json!({ "code": "UNAVAILABLE", "message": message })
}

fn missing_scope(client: Client) -> Value {
    let message = format!("missing scope: {SCOPE}");
    match client {
        Client::Waits => invalid(&message),
        Client::Follows => {
            let details = json!({ "code": "MISSING_SCOPE", "missingScope": SCOPE });
            json!({ "code": "FORBIDDEN", "message": message, "details": details })
        }
    }
}

fn result(call: &Intercepted, answer: Result<Value, Value>) -> Value {
    let id = &call.claimed.call["id"];
    match answer {
        Ok(payload) => json!({ "type": "res", "id": id, "ok": true, "payload": payload }),
        Err(error) => json!({ "type": "res", "id": id, "ok": false, "error": error }),
    }
}

async fn respond(call: &Intercepted, answer: Result<Value, Value>) {
    say(call, result(call, answer), false).await;
}

async fn say(call: &Intercepted, message: Value, closes: bool) {
    let (connection, answers) = (call.claimed.connection, Some(call.claimed.call["id"].clone()));
    // A client that is gone asks again when it is back.
    let _ = call.say(Say { connection, answers, message, closes }).await;
}
