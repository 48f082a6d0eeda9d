//! States and events in few words, for traces and for the drawn machine.

use cutover_core::{
    Act, Base, Boot, DataOrder, Done, Event, Exit, Hold, Installed, Kind, Order, Phase, Resolution, Run,
    Serving, State, Status, Tree, Wish,
};
use std::fmt::Write;

/// The word of an act, as the wire has it.
pub(crate) fn act(act: Act) -> String {
    let name = format!("{act:?}");
    let mut word = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && at > 0 {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

pub(crate) fn order(order: &Order) -> &'static str {
    match order {
        Order::Update { hold: Hold::AsRuled, .. } => "update",
        Order::Update { hold: Hold::Asked, .. } => "update --hold",
        Order::Rollback { data: cutover_core::DataWish::Keep, .. } => "rollback --data keep",
        Order::Rollback { data: cutover_core::DataWish::Restore, .. } => "rollback --data restore",
        Order::Start => "start",
        Order::Stop => "stop",
        Order::Restart => "restart",
        Order::Cancel => "cancel",
        Order::Hold => "hold",
        Order::Approve { .. } => "approve",
        Order::Retry => "recover --retry",
        Order::RecoverRollback => "recover --rollback",
        Order::Accept => "recover --accept",
    }
}

fn place(installed: &Installed) -> String {
    format!("{} in {}", installed.release.version, installed.generation.0)
}

fn done(done: &Done) -> String {
    match done {
        Done::Resolved { release } => format!("resolved {}", release.version),
        Done::AlreadyCurrent { release } => format!("already current {}", release.version),
        Done::Staged { installed } => format!("staged {}", place(installed)),
        Done::Checked(_) => "checked".into(),
        Done::Missed { .. } => "missed".into(),
        Done::Skipped { .. } => "skipped".into(),
        Done::Mendable { .. } => "mendable".into(),
        Done::Started { instance } => format!("started {instance}"),
        Done::Observed { expectation, .. } => format!("observed {}", expectation.instance),
        Done::Done { .. } => "done".into(),
    }
}

/// One event.
pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Ordered { run, order: asked, .. } => format!("ordered {} ({run})", order(asked)),
        Event::Finished { ticket, done: with, .. } => {
            format!("{} {}#{}: {}", ticket.run, act(ticket.act), ticket.round, done(with))
        }
        Event::Faulted { ticket, fault, .. } => {
            format!("{} {}#{}: fault {}", ticket.run, act(ticket.act), ticket.round, fault.code)
        }
        Event::SnapshotStale { ticket } => format!("{} {}: snapshot stale", ticket.run, act(ticket.act)),
        Event::Spawned { generation, .. } => format!("spawned {}", generation.0),
        Event::Exited { instance, exit, .. } => match exit {
            Exit::Code(code) => format!("exited {instance}: {code}"),
            Exit::Signal(signal) => format!("exited {instance}: signal {signal}"),
            Exit::Unknown(_) => format!("exited {instance}"),
        },
        Event::Ready { expectation, .. } => format!("ready {}", expectation.instance),
        Event::Degraded { run, fault } => format!("degraded: {} ({run})", fault.code),
        Event::Released { ticket } => format!("{} released", ticket.run),
        Event::WatchEnded { run } => format!("watch of {run} ended"),
        Event::TreeChanged { run, generation, .. } => format!("tree {} changed ({run})", generation.0),
        Event::FrontLost => "front lost".into(),
        Event::Measured { run, .. } => format!("{run}: traffic measured"),
        Event::Subscribed { targets } => format!("{} are told from now on", targets.len()),
        Event::Alarmed { fault, .. } => format!("alarm: {}", fault.code),
        Event::Calmed { .. } => "the alarm is over".into(),
        Event::Told { notification, .. } => format!("{notification} told"),
        Event::Recovered { boot, live, .. } => {
            let boot = if *boot == Boot::New { "rebooted" } else { "daemon killed" };
            match live {
                Some(live) => format!("{boot}, {live} lives"),
                None => format!("{boot}, nothing lives"),
            }
        }
    }
}

fn run(run: &Run) -> String {
    let kind = match run.kind {
        Kind::Update => "update",
        Kind::Rollback => "rollback",
        Kind::AutoRevert => "auto-revert",
        Kind::TreeChanged => "reseal",
        Kind::Accept => "accept",
    };
    let source = run.source.as_ref().map_or_else(|| "nothing".into(), place);
    let data = match &run.data {
        DataOrder::Keep => String::new(),
        DataOrder::Restore { snapshot } => format!(", data of {snapshot}"),
    };
    format!("{kind} {} from {source}{data}", run.id)
}

fn base(base: &Base) -> &'static str {
    match base {
        Base::Idle => "",
        Base::Watching(_) => ", watching",
        Base::Maintenance(_) => ", in maintenance",
    }
}

/// The phase alone.
pub(crate) fn phase(state: &State) -> &'static str {
    match &state.phase {
        Phase::Idle if state.parked.is_some() => "Parked",
        Phase::Idle => "Idle",
        Phase::Preparing(_) => "Preparing",
        Phase::CuttingOver(_) => "CuttingOver",
        Phase::RollingBack(_) => "RollingBack",
        Phase::Watching(_) => "Watching",
        Phase::Maintenance(_) => "Maintenance",
    }
}

/// One state, in one line.
pub(crate) fn state(state: &State) -> String {
    let mut words = phase(state).to_owned();
    let more = match &state.phase {
        Phase::Idle => {
            state.parked.as_ref().map(|cut| format!(" {} ({})", run(&cut.run), place(&cut.target)))
        }
        Phase::Watching(watch) => Some(format!(" {}", watch.run)),
        Phase::Preparing(p) => Some(format!(" {}: {}{}", act(p.act), run(&p.run), base(&p.base))),
        Phase::CuttingOver(cut) => {
            Some(format!(" {}: {} to {}{}", act(cut.act), run(&cut.run), place(&cut.target), base(&cut.base)))
        }
        Phase::RollingBack(retreat) => {
            let cut = &retreat.cut;
            Some(format!(" {}: {} to {}{}", act(cut.act), run(&cut.run), place(&cut.target), base(&cut.base)))
        }
        Phase::Maintenance(m) => {
            let coherent = m.coherent.map_or("none".into(), |coherent| coherent.0.to_string());
            Some(format!(" {} to {}, coherent {coherent}", run(&m.run), place(&m.target)))
        }
    };
    words.push_str(&more.unwrap_or_default());
    let current = state.current.as_ref().map_or_else(|| "nothing".into(), place);
    write!(words, "; current {current}").expect("a String takes everything");
    match &state.serving {
        Serving::Unproven => {}
        Serving::Proven(live) => write!(words, "; proven {live}").expect("a String takes everything"),
        Serving::Waived(Some(live)) => write!(words, "; waived {live}").expect("a String takes everything"),
        Serving::Waived(None) => words.push_str("; waived"),
    }
    if state.wish == Wish::Stopped {
        words.push_str("; stopped");
    }
    if state.tree == Tree::Damaged {
        words.push_str("; damaged");
    }
    words
}

/// What a run told when it ended.
pub(crate) fn told(status: Option<Status>, resolution: Resolution) -> String {
    let status = status.map_or("none", Status::word);
    let resolution = format!("{resolution:?}");
    format!("{status}, {resolution}")
}
