//! The rehearsal act: the target is started in isolation, on a copy of the state, and must answer there as it will have to,
//! before anything stops.
//!
//! What both the target and what runs now fail at is this machine's, or the isolation's: it keeps nobody from updating.

use super::house::{Purpose, Right};
use super::preflight::family;
use super::prover::{Proof, expectation};
use super::repairing::{Patient, unshown};
use super::trial::{Standing, Trial};
use super::{Enough, Executor, Outcome, chain, fault};
use crate::causes::told;
use crate::conductor::ledger::moment;
use crate::predecessor::Record;
use crate::preflight::{self, Copied, Host, Secrets, Stop};
use crate::rehearsal::{self, End, Next, Rehearsal, Sighting};
use crate::sandbox::Sandbox;
use crate::store::snapshot::Mended;
use crate::supervisor::{Exit, Launch};
use cutover_core::{Done, Expectation, Fault, Finding, Installed, Level, Policy, RehearsalRule, Ticket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KIND: &str = "rehearsal";

/// What a service may write to its home and the like (bytes, each), and to one file; what is read of what it says. Its
/// compiled code is among that: OpenClaw's takes 40 MB of TMPDIR.
const PRIVATE_MAX: u64 = 512 << 20;
const FILE_MAX: u64 = 1 << 30;
const SAID_MAX: usize = 64 << 10;

/// Longest time that furnishing and leaving an empty house may take.
const TRIED: Duration = Duration::from_secs(20);

/// Of the act's own limit: until when another service's rehearsal is waited for, and until when target and source must have
/// ended, so that what is missing is named and the source has a turn.
const WAITED: f64 = 0.25;
const TARGET: f64 = 0.6;
const SOURCE: f64 = 0.9;

/// Between what happened and what a log says of it, which is for this machine only.
pub(in super::super) const LOG_ENDS: &str = "; its log ends: ";

/// Last lines of a log that are told with a failure, and how much of each.
const LINES: usize = 5;
const LINE_MAX: usize = 240;

/// Why there is no rehearsal.
enum Absence {
    /// None is needed.
    Needless(String),
    /// One is wanted, and is not possible here.
    Impossible(String),
}

/// What a rehearsal came to.
enum Played {
    /// It answered as it must.
    Passed { how: String },
    /// It did not run.
    Not { why: String },
    /// There is evidence against it, by its own answer.
    Refuted { why: String },
    /// It ended, or did not become what it must be. Where it is may be the reason.
    Failed { why: String },
    /// The same, and the exit code says that starting again cannot help.
    Hopeless { why: String },
}

impl Executor {
    /// Rehearses the target where that is possible; with a mended configuration there is no way on without.
    pub(super) async fn rehearse(
        &self,
        ticket: &Ticket,
        target: &Installed,
        source: Option<&Installed>,
        policy: &Policy,
    ) -> Outcome {
        let mended = self.mended(&ticket.run).await?;
        let is_mended = !mended.is_empty();
        match self.rehearsed(ticket, target, source, policy, &mended).await? {
            Done::Skipped { why } if is_mended => Err(unshown(&why)),
            done => Ok(done),
        }
    }

    async fn rehearsed(
        &self,
        ticket: &Ticket,
        target: &Installed,
        source: Option<&Installed>,
        policy: &Policy,
        mended: &[Mended],
    ) -> Outcome {
        let begun = Instant::now();
        match self.absence(target, source, policy.rehearse).await? {
            Some(Absence::Needless(why)) => return Ok(Done::Skipped { why }),
            Some(Absence::Impossible(why)) => return left_out(policy.rehearse, why),
            None => {}
        }
        let waited = policy.hard_cap.mul_f64(WAITED);
        let Ok(copies) = tokio::time::timeout(waited, self.copies(Purpose::Rehearsal)).await else {
            return left_out(policy.rehearse, format!("another service was being rehearsed for {waited:?}"));
        };
        let (scratch, right) = copies?;
        let right = Arc::new(right);
        let turn = |share| Turn {
            ticket,
            policy,
            scratch: &scratch,
            right: &right,
            end: begun + policy.hard_cap.mul_f64(share),
        };
        let version = &target.release.version;
        let (why, may_be_mended) = match self.played(target, &turn(TARGET), mended).await? {
            Played::Passed { how } => return Ok(Done::Done { note: format!("{version} {how}") }),
            Played::Not { why } => return left_out(policy.rehearse, why),
            Played::Refuted { why } => return Err(failed(version, &why)),
            Played::Failed { why } => (why, false),
            Played::Hopeless { why } => (why, mended.is_empty() && self.repair(policy).is_some()),
        };
        let refused = |why: &str| {
            let fault = failed(version, why);
            if may_be_mended { Ok(Done::Mendable { fault }) } else { Err(fault) }
        };
        let Some(source) = source else { return refused(&why) };
        let running = &source.release.version;
        match self.played(source, &turn(SOURCE), &[]).await? {
            Played::Passed { .. } => refused(&format!("{why}; {running}, which runs, passes there")),
            Played::Not { why: other }
            | Played::Refuted { why: other }
            | Played::Failed { why: other }
            | Played::Hopeless { why: other } => {
                let text = format!(
                    "no evidence: {running}, which runs, was not seen to pass a rehearsal either ({other}); {version}: {why}"
                );
                left_out(policy.rehearse, text)
            }
        }
    }

    /// What a plan and a preflight say of the rehearsal that is to come.
    pub(super) async fn foreseen(
        &self,
        target: &Installed,
        source: Option<&Installed>,
        rule: RehearsalRule,
    ) -> Result<Finding, Fault> {
        let version = &target.release.version;
        let (level, text) = match self.absence(target, source, rule).await? {
            None => {
                let on = if self.site.settings.state.is_empty() { "" } else { ", on a copy of the state" };
                (
                    Level::Note,
                    format!("{version} is rehearsed before anything stops: started in isolation{on}"),
                )
            }
            Some(Absence::Needless(why)) => (Level::Note, format!("no rehearsal: {why}")),
            Some(Absence::Impossible(why)) if rule == RehearsalRule::Always => {
                (Level::Block, format!("no rehearsal, which `policy.rehearse` always wants: {why}"))
            }
            Some(Absence::Impossible(why)) => (Level::Warn, format!("no rehearsal: {why}")),
        };
        Ok(Finding::new(level, KIND, text))
    }

    /// Why there will be no rehearsal, if there will be none, in words.
    pub(super) async fn unrehearsed(&self, patient: &Patient<'_>) -> Result<Option<String>, Fault> {
        let Patient { target, source, policy, .. } = *patient;
        let absence = self.absence(target, source, policy.rehearse).await?;
        Ok(absence.map(|(Absence::Needless(why) | Absence::Impossible(why))| why))
    }

    /// Why there will be no rehearsal, if there will be none.
    async fn absence(
        &self,
        target: &Installed,
        source: Option<&Installed>,
        rule: RehearsalRule,
    ) -> Result<Option<Absence>, Fault> {
        let needless = |why: &str| Ok(Some(Absence::Needless(why.to_owned())));
        let impossible = |why: String| Ok(Some(Absence::Impossible(why)));
        if rule == RehearsalRule::Never {
            return needless("`policy.rehearse` is \"never\"");
        }
        // What was current once has proven itself, on the real state and not on what would be copied now.
        if source.is_some_and(|source| target.generation < source.generation) {
            return needless("the way back is to a version that has proven itself");
        }
        if source.is_some_and(|source| target.release == source.release) {
            return needless("it is the release that runs now");
        }
        let running = self.running().await?;
        if running.is_empty() && rule == RehearsalRule::Auto {
            let record = Record::read(&self.site.directory()).map_err(chain(KIND))?;
            return needless(match record.is_some_and(|record| record.is_in_charge()) {
                true => "it is a copy of what runs now",
                false => "nothing runs that a failed start could take away",
            });
        }
        let memory = preflight::Rehearsal { running: family(&running)? };
        let host = Host { rehearsal: Some(memory), ..Host::default() };
        let looked = tokio::task::spawn_blocking(move || preflight::host(&host)).await;
        let looked = looked.expect("BUG: looking at the memory panicked");
        if let Some(finding) = looked.into_iter().find(|finding| finding.level > Level::Note) {
            return impossible(finding.text);
        }
        let (house, executable) = (self.scene(target)?.1, self.site.executable.clone());
        let tried = tokio::task::spawn_blocking(move || rehearsal::refused(&house, &executable, TRIED)).await;
        match tried.expect("BUG: trying a sandbox panicked") {
            Ok(None) => Ok(None),
            Ok(Some(why)) => impossible(format!("no isolation: {why}")),
            Err(error) => impossible(format!("no sandbox: {}", told(&error))),
        }
    }

    /// How a generation is started, and the house for that, without copies.
    fn scene(&self, installed: &Installed) -> Result<(Launch, Sandbox), Fault> {
        // Nothing outside bears this mark: what looks for a service's processes does not take these for them.
        let nonce = format!("rehearsal-{}", uuid::Uuid::now_v7().simple());
        let launch = self.site.launch(installed.generation, nonce);
        let mut launch = launch.map_err(|error| fault("launch", format!("{error:#}")))?;
        let house = self.house(installed, &launch, &launch.program)?;
        launch.env.clone_from(&house.env);
        let limits = Sandbox { private_max: PRIVATE_MAX, file_max: FILE_MAX, said_max: SAID_MAX, ..house };
        Ok((launch, limits))
    }

    /// One rehearsal of one generation, on a copy of its own.
    async fn played(
        &self,
        installed: &Installed,
        turn: &Turn<'_>,
        mended: &[Mended],
    ) -> Result<Played, Fault> {
        let Turn { ticket, policy, scratch, right, end } = *turn;
        let (launch, house) = self.scene(installed)?;
        let ours = self.site.layout.state.canonicalize().map_err(chain(KIND))?;
        // Given up with this act, wherever that is: what is begun here ends with it.
        let (_interest, stop) = Stop::pair().map_err(chain(KIND))?;
        let audience = Audience::new(self, ticket, installed, &launch, policy);
        let order = rehearsal::Order {
            questions: self.site.questions(),
            address: self.site.address(),
            root: self.site.store.tree(installed.generation).map_err(chain("store"))?,
            place: ours.join(KIND),
            pause: policy.probe_interval,
            grace: policy.stop_grace,
            launch,
        };
        let room = Room { audience, rehearsal: Rehearsal { house, order }, stop, end };
        let (state, executable) = (self.site.state_paths(), self.site.executable.clone());
        let (scratch, right, mended) = (scratch.to_owned(), Arc::clone(right), mended.to_owned());
        let seating = self.seating(installed)?;
        let tally = self.tally.clone();
        self.progress(ticket, format!("copying state to rehearse {}", installed.release.version), 0, None);
        let played = tokio::task::spawn_blocking(move || {
            let _right = right;
            let copied = Copied::of(&state, &scratch, &moment()).and_then(|copied| {
                tally.add(copied.bytes());
                copied.mend(&mended)?;
                copied.seat(&seating)?;
                Ok(copied)
            });
            match copied {
                Ok(copied) => room.play(&copied, &executable),
                Err(why) => Played::Not { why },
            }
        });
        Ok(played.await.expect("BUG: a rehearsal panicked"))
    }
}

/// One of the two that may be rehearsed in an act.
struct Turn<'a> {
    ticket: &'a Ticket,
    policy: &'a Policy,
    scratch: &'a Path,
    right: &'a Arc<Right>,
    end: Instant,
}

/// A rehearsal that is about to begin, and who watches it.
struct Room {
    audience: Audience,
    rehearsal: Rehearsal,
    stop: Stop,
    end: Instant,
}

impl Room {
    fn play(self, copied: &Copied, executable: &Path) -> Played {
        let Self { mut audience, rehearsal, stop, end } = self;
        // A copy takes its time.
        if stop.is_asked() {
            return Played::Not { why: "given up".into() };
        }
        let secrets = copied.secrets(&rehearsal.order.launch.env);
        let rehearsal = Rehearsal { house: copied.furnish(rehearsal.house), ..rehearsal };
        audience.begun = Instant::now();
        let limit = end.saturating_duration_since(Instant::now());
        let outcome = rehearsal.run(executable, limit, stop.poll(), |sighting| audience.sees(sighting));
        match outcome {
            Ok(rehearsal::Outcome::NoIsolation { why }) => {
                Played::Not { why: format!("no isolation: {why}") }
            }
            Ok(rehearsal::Outcome::Played { end, log }) => audience.verdict(&end, &log, &secrets),
            Err(error) => Played::Not { why: format!("no sandbox: {}", told(&error)) },
        }
    }
}

/// Watches a rehearsal and lets the core judge every round of it.
struct Audience {
    executor: Executor,
    ticket: Ticket,
    installed: Installed,
    launch: Launch,
    trial: Trial,
    expectation: Option<Expectation>,
    result: Option<Standing>,
    begun: Instant,
    took: Duration,
}

impl Audience {
    fn new(
        executor: &Executor,
        ticket: &Ticket,
        installed: &Installed,
        launch: &Launch,
        policy: &Policy,
    ) -> Self {
        Self {
            executor: executor.clone(),
            ticket: ticket.clone(),
            installed: installed.clone(),
            launch: launch.clone(),
            trial: Trial::begun(Enough::rounds(policy.streak, policy), policy.start_deadline),
            expectation: None,
            result: None,
            begun: Instant::now(),
            took: Duration::ZERO,
        }
    }

    fn sees(&mut self, sighting: Sighting) -> Next {
        let standing = match (sighting, &mut self.expectation) {
            (Sighting::Started(instance), _) => {
                let site = &self.executor.site;
                match expectation(site, &self.launch, &self.installed, instance, Proof::Prove) {
                    Ok(expectation) => {
                        self.expectation = Some(expectation);
                        self.trial.begin_again();
                        Standing::Open
                    }
                    Err(fault) => Standing::Stuck(fault),
                }
            }
            (Sighting::Round(mut seen), Some(expectation)) => {
                let standing = self.trial.judge(expectation, &mut seen);
                let (shown, done, total) = self.trial.progress();
                let shown = format!("rehearsing {}: {shown}", self.installed.release.version);
                self.executor.progress(&self.ticket, shown, done, Some(total));
                standing
            }
            // Nothing is expected of a process that nobody knows.
            (Sighting::Round(_), None) => Standing::Open,
        };
        if matches!(standing, Standing::Open) {
            return Next::More;
        }
        self.took = self.begun.elapsed();
        self.result = Some(standing);
        Next::Enough
    }

    fn verdict(&self, end: &End, log: &str, secrets: &Secrets) -> Played {
        let last = last_lines(&secrets.hidden_in(log));
        let hidden = |text: &str| secrets.hidden_in(text);
        match &self.result {
            Some(Standing::Proven) => Played::Passed { how: self.passed(end) },
            Some(Standing::Refuted(fault)) if self.trial.is_refuted_by_its_own_answer() => {
                Played::Refuted { why: format!("{}{last}", hidden(&fault.detail)) }
            }
            Some(Standing::Refuted(fault) | Standing::Stuck(fault)) => {
                Played::Failed { why: format!("{}{last}", hidden(&fault.detail)) }
            }
            Some(Standing::Open) | None => {
                let how = match end {
                    End::Exited(exit) => format!("it ended by itself: {}", hidden(&format!("{exit:?}"))),
                    End::NotStarted(why) => format!("it was not started: {}", hidden(why)),
                    End::Killed(why) => format!("it was killed: {why}"),
                    End::Stopped { .. } => "it was ended before it had proven itself".into(),
                };
                let why = format!("{how}{last}");
                if self.is_hopeless(end) { Played::Hopeless { why } } else { Played::Failed { why } }
            }
        }
    }

    /// Whether it ended with an exit code that means that starting again cannot help.
    fn is_hopeless(&self, end: &End) -> bool {
        let codes = &self.executor.site.settings.restart_prevent_exit_status;
        matches!(end, End::Exited(Exit::Code(code)) if codes.contains(code))
    }

    fn passed(&self, end: &End) -> String {
        let held = self.trial.held().join(", ");
        let ended = match end {
            End::Stopped { took, forced: false } => format!("ended on TERM after {} ms", took.as_millis()),
            End::Stopped { took, forced: true } => format!("had to be killed after {} ms", took.as_millis()),
            End::Exited(exit) => format!("then ended by itself ({exit:?})"),
            End::NotStarted(why) | End::Killed(why) => format!("then had to be killed ({why})"),
        };
        let rounds = self.trial.progress().1;
        let state = if self.executor.site.settings.state.is_empty() { "" } else { " on a copy of the state" };
        format!(
            "started in isolation{state} and answered as it must after {} ms, {rounds} rounds in a row ({held}); {ended}",
            self.took.as_millis()
        )
    }
}

/// What is left out under a rule that leaves nothing out is a fault.
fn left_out(rule: RehearsalRule, why: String) -> Outcome {
    match rule {
        RehearsalRule::Always => {
            Err(fault(KIND, format!("{why}; `policy.rehearse = \"auto\"` would go on without a rehearsal")))
        }
        RehearsalRule::Auto | RehearsalRule::Never => Ok(Done::Skipped { why }),
    }
}

fn failed(version: &str, why: &str) -> Fault {
    fault(KIND, format!("{version} does not work in isolation, nothing was stopped for it: {why}"))
}

/// The last lines of a log, as the end of a sentence.
fn last_lines(log: &str) -> String {
    let lines: Vec<String> = log
        .lines()
        .map(|line| line.trim().chars().filter(|c| !c.is_control()).take(LINE_MAX).collect::<String>())
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(LINES)..] {
        [] => "; its log is empty".into(),
        lines => format!("{LOG_ENDS}{}", lines.join(" | ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_last_lines_are_told_without_what_is_empty_or_endless() {
        assert_eq!(last_lines(" \n\n"), "; its log is empty");
        let log: String = (1..=9).map(|n| format!("line {n}\n\n")).collect();
        assert_eq!(last_lines(&log), "; its log ends: line 5 | line 6 | line 7 | line 8 | line 9");
        assert_eq!(last_lines(&"x".repeat(1000)).len(), "; its log ends: ".len() + LINE_MAX);
        assert_eq!(last_lines("\u{1b}[31mred"), "; its log ends: [31mred");
    }

    #[test]
    fn what_is_left_out_is_a_fault_only_where_nothing_may_be() {
        let told = |rule| left_out(rule, "no isolation: unshare".into());
        assert_eq!(told(RehearsalRule::Auto), Ok(Done::Skipped { why: "no isolation: unshare".into() }));
        let fault = told(RehearsalRule::Always).unwrap_err();
        assert_eq!(fault.code, "rehearsal");
        assert!(fault.detail.starts_with("no isolation: unshare; "), "{}", fault.detail);
    }
}
