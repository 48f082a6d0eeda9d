//! Scenarios as text: what happened, and after each line what the machine told and wanted. `UPDATE=1` writes the answers
//! anew; the lines that begin with `>` are the script and stay.
//!
//! The notation: `> order update`, `> done` (the act under way, its natural result), `> done until start`, `> observed`,
//! `> observed but version wrong`, `> fault crashed`, `> late done` (the answer of the act before), `> exited 1`,
//! `> ready 2`, `> daemon killed`, `> reboot`, `> tree 1 changed`. Processes and runs are numbered as they come.

#![allow(
    clippy::disallowed_methods,
    reason = "a transcript is a file, and may be asked to be written anew; the core touches neither"
)]

mod cast;

use cast::{Flaw, PLAIN, Rules, words};
use cutover_core::{
    ApprovalRule, Base, Boot, Checked, DataClass, DataWish, Declared, Done, Effect, Entry, Event, Exit,
    Finding, Generation, Hold, Installed, LayDown, Level, Order, Phase, PlanId, Preparation, Process, Record,
    Recorded, Refusal, ReleaseRule, Report, Resolution, RestoreAfterRelease, RollbackRule, RunId, Serving,
    Settings, State, Status, Strategy, Ticket, Transition, Wanted, Wish, Writes, posture, replay, report,
    step, wants,
};
use std::path::Path;

/// A scenario being told.
struct Telling {
    settings: Settings,
    first: State,
    state: State,
    entries: Vec<Entry>,
    records: Vec<Record>,
    pids: u32,
    runs: u32,
    /// The ticket before the one under way.
    late: Option<Ticket>,
    recovery: Vec<String>,
    /// What was to be approved so far.
    plans: Vec<PlanId>,
    text: String,
}

impl Telling {
    fn of(service: &str) -> Self {
        let mut rules = PLAIN;
        let mut state = State::new();
        state.current = Some(cast::installed(1, 1));
        state.serving = Serving::Proven(cast::instance(1));
        for word in service.split(", ") {
            match word {
                "neutral data" => {}
                "migrated data" => rules.class = DataClass::Migrated,
                "no data" => rules.class = DataClass::None,
                "signal" => rules.strategy = Strategy::Signal,
                "rollback never" => rules.rollback = RollbackRule::Never,
                "released by data" => rules.release = ReleaseRule::ByData,
                "released after the soak" => rules.release = ReleaseRule::AfterSoak,
                "approved" => rules.approve = ApprovalRule::Always,
                "in a window" => rules.hours = cast::Hours::Nightly,
                "restore allowed" => rules.restore = RestoreAfterRelease::Allowed,
                "kept stopped" => {
                    state.wish = Wish::Stopped;
                    state.serving = Serving::Unproven;
                }
                "nothing installed" => state = State::new(),
                other => panic!("a service that is {other:?}?"),
            }
        }
        Self {
            settings: Rules::settings(rules),
            first: state.clone(),
            state,
            entries: Vec::new(),
            records: Vec::new(),
            pids: 1,
            runs: 0,
            late: None,
            recovery: Vec::new(),
            plans: Vec::new(),
            text: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Plays one line of the script.
    fn play(&mut self, script: &str) {
        self.line(&format!("> {script}"));
        if let Some(until) = script.strip_prefix("done until ") {
            while self.ticket().is_some_and(|ticket| words::act(ticket.act) != until) {
                let event = self.answer();
                self.take(&event).expect("the natural answer is taken");
            }
            return self.tell();
        }
        let event = self.event(script);
        match self.take(&event) {
            Ok(()) => self.tell(),
            Err(refusal) => {
                // By its number: its name is a hash.
                let named = |told: String, (at, plan): (usize, &PlanId)| {
                    told.replace(&plan.0, &format!("{}", at + 1))
                };
                let told = self.plans.iter().enumerate().fold(refusal.to_string(), named);
                self.line(&format!("  refused: {told}"));
            }
        }
    }

    fn ticket(&self) -> Option<Ticket> {
        wants(&self.state).act.map(|(ticket, _)| ticket)
    }

    fn take(&mut self, event: &Event) -> Result<(), Refusal> {
        let ticket = self.ticket();
        let Transition { state, ended } = step(&self.state, event)?;
        let seq = self.entries.len() as u64;
        let recorded = Recorded::of(&state);
        let entry = Entry { seq, wall_ms: seq * 10, boot_ms: seq * 10, event: event.clone(), recorded };
        for record in &mut self.records {
            let open = self.state.open_run() == Some(&record.run);
            if open || ended.as_ref().is_some_and(|ended| ended.run == record.run) {
                record.add(&entry, &self.state, &state, ended.as_ref());
            }
        }
        self.records.extend(Record::begun(&entry, &self.state, &state));
        self.entries.push(entry);
        self.state = state;
        if self.ticket() != ticket {
            self.late = ticket;
        }
        if let Event::Finished { done: Done::Started { instance }, .. } = event {
            self.pids = instance.pid;
        }
        if let Some(ended) = ended {
            let told = ended.status.map_or("nothing to do", Status::word);
            let resolution = format!("{:?}", ended.resolution);
            let writes = if ended.writes == Writes::Kept { "kept" } else { "given up" };
            self.line(&format!("  {} ends: {told}; resolution {resolution}; writes {writes}", ended.run));
            let record = self.records.iter().find(|record| record.run == ended.run);
            let sentence = report("web", &self.state, record).sentence;
            self.line(&format!("  {} is told: {sentence}", ended.run));
        }
        Ok(())
    }

    /// What is told and wanted now.
    fn tell(&mut self) {
        let told = self.report();
        let act = self.ticket().map_or(String::new(), |ticket| format!(" {}", words::act(ticket.act)));
        let process = match wants(&self.state).process {
            Process::Run(installed) => format!("run {}", installed.release.version),
            Process::Replace(leaving, installed) => {
                format!("end {leaving}, run {}", installed.release.version)
            }
            Process::Stopped => "none".into(),
            Process::LeaveAlone => "as the act says".into(),
        };
        let serving = match (told.serving.version, told.serving.instance) {
            (Some(version), Some(instance)) => format!("{version} ({instance})"),
            _ => "nothing proven".into(),
        };
        let status = told.status.map_or("-", Status::word).to_owned() + if told.ok { " (ok)" } else { "" };
        let front = told.serving.posture;
        let phase = words::phase(&self.state);
        self.line(&format!(
            "  {phase}{act}; front {front}; process {process}; told {status}; serving {serving}"
        ));
        if let Some(awaits) = &told.awaits {
            let what = if awaits.plan.is_some() { "a person" } else { "the time" };
            let windows = if awaits.windows.is_empty() { "any" } else { "in its window" };
            self.line(&format!("  waits for {what}; hours: {windows}; {}", told.sentence));
        }
        if let Some(plan) = told.awaits.and_then(|awaits| awaits.plan) {
            if !self.plans.contains(&plan) {
                self.plans.push(plan.clone());
            }
            let number = self.plans.iter().position(|known| *known == plan).map_or(0, |at| at + 1);
            self.line(&format!("  to be approved: plan {number}"));
        }
        if told.recovery != self.recovery {
            self.recovery = told.recovery;
            for command in self.recovery.clone() {
                self.line(&format!("  type: {command}"));
            }
        }
    }

    /// What everybody reads about the newest run; it must agree with itself.
    fn report(&self) -> Report {
        let told = report("web", &self.state, self.records.last());
        let current = self.records.last().and_then(|record| record.ending.as_ref());
        let nothing_to_do = current
            .is_some_and(|ending| ending.status.is_none() && ending.resolution == Resolution::OldVerified);
        assert_eq!(told.ok, told.status == Some(Status::RestartVerified) || nothing_to_do, "{}", self.text);
        assert_eq!(told.serving.posture, format!("{:?}", posture(&self.state)).to_lowercase());
        told
    }

    /// A look, and what it came to.
    fn looked(&self, what: &str) -> Event {
        let found = |level, kind: &str, text: &str| Finding::new(level, kind, text);
        let mut checked = Checked::default();
        match what {
            "" => {}
            "and told that it leaves the data" => checked.class = Some(DataClass::Neutral),
            "with a warning" => checked.findings = vec![found(Level::Warn, "port", "a stranger")],
            "with what is mended" => {
                checked.findings = vec![found(Level::Warn, "configuration", "").changing("removes a key")];
                checked.class = Some(DataClass::Migrated);
            }
            "with a block" => {
                checked.findings = vec![
                    found(Level::Note, "space", "enough"),
                    found(Level::Block, "import", "a module is missing"),
                ];
            }
            "with another command" => checked.setup = cast::setup(2),
            "with data that was none" => {
                checked.declared =
                    Some(Declared { class: DataClass::Migrated, release: ReleaseRule::ByData });
            }
            unknown => panic!("a look {unknown}"),
        }
        self.finished(Done::Checked(checked))
    }

    fn event(&mut self, script: &str) -> Event {
        let words: Vec<&str> = script.split(' ').collect();
        match words.as_slice() {
            ["order", order @ ..] => self.ordered(&order.join(" ")),
            ["done"] => self.answer(),
            ["observed", "but", fact, flaw] => self.observed_but(fact, flaw),
            ["late", "done"] => {
                let ticket = self.late.clone().expect("an act before this one");
                Event::Finished { ticket, done: Done::Done { note: String::new() }, copied: None }
            }
            ["late", "proof", "of", pid] => self.late_proof(number(pid)),
            ["already", "current"] => {
                let release = self.state.current.clone().expect("something is installed").release;
                self.finished(Done::AlreadyCurrent { release })
            }
            ["target", "says", "neutral"] => self.looked("and told that it leaves the data"),
            ["checked"] => self.looked(""),
            ["checked,", what @ ..] => self.looked(&what.join(" ")),
            ["mendable"] => self.finished(Done::Mendable { fault: cast::fault("rehearsal") }),
            ["not", "rehearsed"] => self.finished(Done::Skipped { why: "no isolation".into() }),
            ["opened"] => self.finished(Done::Done { note: "it opened".into() }),
            ["missed"] => self.finished(Done::Missed { why: "it closed".into() }),
            ["writes", "stay"] => self.finished(Done::Skipped { why: "old code can go on with it".into() }),
            ["fault", code] => {
                let ticket = self.ticket().expect("an act is under way");
                Event::Faulted { ticket, fault: cast::fault(code), copied: None }
            }
            ["snapshot", "stale"] => {
                Event::SnapshotStale { ticket: self.ticket().expect("an act is under way") }
            }
            ["keeper", "of", generation] => {
                Event::Spawned { generation: Generation(number(generation)), keeper: cast::instance(90) }
            }
            ["exited", pid, code] => {
                let code = code.parse().expect("an exit code");
                cast::exited(cast::instance(number(pid)), Exit::Code(code))
            }
            ["ready", pid] => self.ready(number(pid)),
            ["degraded", code] => Event::Degraded { run: self.fresh_run(), fault: cast::fault(code) },
            ["watch", "ends"] => match &self.state.phase {
                Phase::Watching(watch)
                | Phase::Preparing(Preparation { base: Base::Watching(watch), .. }) => {
                    Event::WatchEnded { run: watch.run.clone() }
                }
                _ => Event::WatchEnded { run: cast::run_id(0) },
            },
            ["tree", generation, "changed"] => Event::TreeChanged {
                run: self.fresh_run(),
                generation: Generation(number(generation)),
                fault: cast::fault("tree_changed"),
                settings: self.settings.clone(),
            },
            ["front", "lost"] => Event::FrontLost,
            ["daemon", "killed,", "nothing", "lives"] => cast::recovered(Boot::Same, None),
            ["daemon", "killed,", pid, "lives"] => {
                cast::recovered(Boot::Same, Some(cast::instance(number(pid))))
            }
            ["reboot"] => cast::recovered(Boot::New, None),
            _ => panic!("what is {script:?}?"),
        }
    }

    /// This answer of the act under way.
    fn finished(&self, done: Done) -> Event {
        Event::Finished { ticket: self.ticket().expect("an act is under way"), done, copied: None }
    }

    fn ordered(&mut self, order: &str) -> Event {
        let update = |hold| Order::Update { wanted: Wanted::Channel("latest".into()), hold };
        let kept = || self.state.previous.clone().expect("a version before this one").installed;
        let order = match order {
            "update" => update(Hold::AsRuled),
            "update --hold" => update(Hold::Asked),
            "hold" => Order::Hold,
            "approve" => Order::Approve { plan: self.plan().expect("something is prepared") },
            "approve what was prepared before" => Order::Approve { plan: self.plans[0].clone() },
            "rollback --data keep" => Order::Rollback { to: kept(), data: DataWish::Keep },
            "rollback --data restore" => Order::Rollback { to: kept(), data: DataWish::Restore },
            "start" => Order::Start,
            "stop" => Order::Stop,
            "restart" => Order::Restart,
            "cancel" => Order::Cancel,
            "recover --retry" => Order::Retry,
            "recover --rollback" => Order::RecoverRollback,
            "recover --accept" => Order::Accept,
            other => panic!("what is the order {other:?}?"),
        };
        let settings = self.settings.clone();
        cast::ordered(self.fresh_run(), order, &settings)
    }

    /// The result that the act under way has when all is well.
    fn answer(&self) -> Event {
        let (ticket, effect) = wants(&self.state).act.expect("an act is under way");
        let done = match effect {
            Effect::Resolve(_) => {
                let current = self.state.current.as_ref();
                let newest = current.map_or(0, |current| cast::release_number(&current.release));
                Done::Resolved { release: cast::release(newest + 1) }
            }
            Effect::Stage(release) => {
                let generations = cast::names(&self.state).generations;
                let generation = Generation(generations.last().map_or(1, |newest| newest + 1));
                Done::Staged { installed: Installed { generation, release } }
            }
            Effect::Place { when, .. } | Effect::Restore { when, .. }
                if when != LayDown::Always && self.settings.class == DataClass::Neutral =>
            {
                Done::Skipped { why: "old code can go on with it".into() }
            }
            Effect::Preflight { .. } => Done::Checked(Checked::default()),
            Effect::Rehearse { .. } => Done::Done { note: "it answers as it must".into() },
            Effect::Await { .. } => Done::Skipped { why: "as configured".into() },
            Effect::Start { .. } => Done::Started { instance: cast::instance(self.pids + 1) },
            Effect::Prove { installed, instance, .. }
            | Effect::ProveBack { installed, instance }
            | Effect::Soak { installed, instance, .. } => {
                let expectation = cast::expectation(&installed, &instance.expect("a process to prove"));
                let observations = cast::as_expected(&expectation);
                Done::Observed { expectation, observations }
            }
            Effect::Release => return Event::Released { ticket },
            _ => Done::Done { note: String::new() },
        };
        Event::Finished { ticket, done, copied: None }
    }

    /// A proof of the run's own process, flawed in one fact.
    fn observed_but(&self, fact: &str, flaw: &str) -> Event {
        let flaw = match flaw {
            "wrong" => Flaw::Wrong,
            "missing" => Flaw::Missing,
            "not-applicable" => Flaw::NotApplicable,
            other => panic!("what is {other:?}?"),
        };
        let name = cast::REQUIRED.into_iter().find(|name| format!("{name:?}").to_lowercase() == fact);
        let Event::Finished { ticket, done: Done::Observed { expectation, .. }, .. } = self.answer() else {
            panic!("no act that observes")
        };
        let observations = cast::flawed(&expectation, name.expect("a fact"), flaw);
        Event::Finished { ticket, done: Done::Observed { expectation, observations }, copied: None }
    }

    /// A whole proof of another process than the run started.
    fn late_proof(&self, pid: u32) -> Event {
        let Event::Finished { ticket, done: Done::Observed { mut expectation, .. }, .. } = self.answer()
        else {
            panic!("no act that observes")
        };
        expectation.instance = cast::instance(pid);
        let observations = cast::as_expected(&expectation);
        Event::Finished { ticket, done: Done::Observed { expectation, observations }, copied: None }
    }

    fn ready(&mut self, pid: u32) -> Event {
        self.pids = self.pids.max(pid);
        let current = self.state.current.clone().expect("something is installed");
        let expectation = cast::expectation(&current, &cast::instance(pid));
        let observations = cast::as_expected(&expectation);
        Event::Ready { expectation, observations }
    }

    fn plan(&self) -> Option<PlanId> {
        self.report().awaits.and_then(|awaits| awaits.plan)
    }

    fn fresh_run(&mut self) -> RunId {
        self.runs += 1;
        cast::run_id(self.runs)
    }
}

fn number(word: &str) -> u32 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

/// The file again, with the answers of today.
fn told(script: &str) -> String {
    let mut text = String::new();
    let mut telling: Option<Telling> = None;
    for line in script.lines() {
        if let Some(service) = line.strip_prefix("service: ") {
            telling = Some(Telling::of(service));
            text.push_str(line);
            text.push('\n');
        } else if let Some(telling) = &mut telling {
            match line.strip_prefix("> ") {
                Some(event) => telling.play(event),
                None if line.starts_with("# ") || line.is_empty() => telling.line(line),
                None => {}
            }
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    let telling = telling.expect("a transcript names its service");
    assert_eq!(replay(&telling.first, &telling.entries), Ok(telling.state), "its journal replays to its end");
    text + &telling.text
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"))
}

fn holds(name: &str) {
    let path = directory().join(format!("{name}.txt"));
    let known = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let told = told(&known);
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&path, &told).expect("the transcript can be written");
    } else {
        assert!(known == told, "{name} is told differently now (UPDATE=1 writes it anew):\n{told}");
    }
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                holds(stringify!($name));
            }
        )*
    };
}

transcripts! {
    a_hold_stops_a_run_before_the_cut
    a_way_back_that_is_interrupted_thrice_forgets_where_the_pointer_is
    a_tree_that_is_changed_in_the_soak_can_be_had_anew
    a_tree_that_is_changed_while_going_back_has_a_way_out
    an_approval_of_something_else_is_refused
    an_approval_of_other_settings_is_refused
    an_approval_outlives_a_warning_that_vanished
    data_that_is_declared_before_a_signal_ends_the_run
    data_that_is_declared_while_a_run_waits_is_heeded
    an_approval_covers_what_is_mended_after_the_rehearsal
    an_update_waits_for_its_approval
    an_update_waits_for_its_window
    a_watch_ends_while_an_update_waits
    what_a_look_refuses_is_not_switched_to
    what_may_be_mended_is_looked_at_again_and_once
    what_serves_fails_while_an_update_waits
    who_serves_again_by_itself_is_not_stopped_unasked
    a_changed_tree_is_sealed_again
    a_changed_tree_that_cannot_be_sealed_is_maintenance
    a_crash_at_boot_is_rolled_back
    a_daemon_killed_in_any_act_costs_nothing
    a_daemon_that_dies_of_the_act_turns_back
    a_failed_first_installation_keeps_acknowledged_writes
    a_failed_first_installation_leaves_nothing
    a_failed_revert_says_which_version_serves
    a_failed_stop_says_that_the_old_version_was_touched
    a_forbidden_start_in_the_watch_is_reverted
    a_forbidden_start_is_not_repeated
    a_forbidden_start_of_migrated_data_stays_down
    a_good_update
    a_process_that_asks_to_begin_anew_in_the_soak_is_proven_again
    a_parked_run_is_cancelled
    a_parked_run_outlives_a_changed_tree
    a_reboot_while_going_back_begins_again
    a_restart_ends_the_live_process_first
    a_stopped_service_is_parked
    a_revert_of_neutral_data_keeps_its_writes
    a_watched_version_is_reverted
    neutral_data_goes_back_with_its_writes
    neutral_data_that_was_migrated_is_not_given_up
    already_current_but_not_proven_is_not_ok
    already_current_restarts_nothing
    cancel_before_the_cut_changes_nothing
    interruptions_alone_stop_nothing
    maintenance_accept_is_never_green
    maintenance_accept_of_the_old_version_is_no_success_of_the_update
    maintenance_accept_of_the_proven_target_is_verified
    maintenance_ends_by_itself_with_the_old_version
    maintenance_retry_proves_the_target
    maintenance_rollback_gives_writes_up_and_says_so
    migrated_data_is_not_reverted_after_release
    r78110_a_stale_snapshot_under_signal_commits_nothing
    r78110_ignored_signal_is_restart_failed
    r78110_ignored_signal_without_rollback_is_maintenance
    r78110_the_wrong_version_is_never_verified
    writes_that_stayed_are_given_up_by_a_person
}

/// What is told of a wait's end and what limits it are counted from there.
#[test]
fn a_wait_is_counted_from_its_first_moment_and_anew_from_a_reboot() {
    let mut telling = Telling::of("neutral data, approved");
    let since = |telling: &Telling| telling.records[0].waits_since.map(|moment| moment.boot_ms / 10);
    telling.play("order update");
    telling.play("done until rehearse");
    assert_eq!(since(&telling), None);
    telling.play("done");
    let begun = telling.entries.last().map(|entry| entry.seq);
    assert_eq!(since(&telling), begun);
    for script in ["daemon killed, 1 lives", "order approve", "done", "done until await"] {
        telling.play(script);
        assert_eq!(since(&telling), begun, "{script}");
    }
    telling.play("reboot");
    let rebooted = telling.entries.last().map(|entry| entry.seq);
    assert_eq!(since(&telling), rebooted);
    for script in ["daemon killed, nothing lives", "order hold"] {
        telling.play(script);
        assert_eq!(since(&telling), rebooted, "{script}");
    }
}

/// Whatever is begun past the cut and may end in success.
#[test]
fn what_was_approved_is_what_is_started_and_proven() {
    let mut telling = Telling::of("neutral data, approved");
    for script in
        ["order update", "done until preflight", "checked, with another command", "done until await"]
    {
        telling.play(script);
    }
    for script in ["order approve", "done", "checked, with another command"] {
        telling.play(script);
    }
    let mut held = Vec::new();
    for script in ["done until start", "done until prove", "done until soak"] {
        telling.play(script);
        held.push(match wants(&telling.state).act.expect("an act is under way").1 {
            Effect::Start { approved, .. }
            | Effect::Prove { approved, .. }
            | Effect::Soak { approved, .. } => approved,
            other => panic!("{script}: {other:?}"),
        });
    }
    assert_eq!(held, [cast::setup(2), cast::setup(2), cast::setup(2)]);
}

#[test]
fn every_transcript_is_a_test() {
    let files = std::fs::read_dir(directory()).expect("the transcripts are there");
    for file in files {
        let name = file.expect("a readable directory").file_name().into_string().expect("plain names");
        assert!(NAMES.contains(&name.trim_end_matches(".txt")), "{name} is told by no test");
    }
}
