//! Breadth-first over the toy world, with hashes for states: first every promise on the way, then backwards from the
//! goals, that there is a way to them from everywhere.

use super::{Budget, Front, Label, Next, Owner, Service, Toy, Way, beginning, is_resting};
use crate::cast;
use cutover_core::{Event, Order, Phase, Posture, Tree, Wish, step};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What an exploration found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) moves: usize,
    /// The first, so shortest, way to each broken promise.
    pub(crate) broken: Vec<Breach>,
}

pub(crate) struct Breach {
    pub(crate) promise: &'static str,
    pub(crate) service: Service,
    pub(crate) trace: Vec<Label>,
}

impl Breach {
    pub(crate) fn story(&self) -> String {
        let labels: Vec<String> = self.trace.iter().map(Label::to_string).collect();
        format!("{} [{:?}]\n    {}", self.promise, self.service, labels.join("\n    "))
    }
}

/// What is remembered of a state that was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Under way.
    Moving,
    /// At rest; nothing more is asked of it.
    Resting,
    /// At rest, serving.
    Up,
    /// At rest, and it must come up by itself.
    Due,
    /// At rest, and it must come up by itself, although its current version is sick: the one before is not.
    DueElsewhere,
    /// A promise broke here.
    Broken,
}

struct Walk {
    ids: HashMap<u128, u32, BuildHasherDefault<Through>>,
    from: Vec<(u32, Label)>,
    standings: Vec<Standing>,
    /// Ways on, backwards: (to, from).
    back: Vec<(u32, u32)>,
}

/// Explores one service within one budget.
pub(crate) fn explore(service: &Service, budget: Budget) -> Found {
    let first = beginning(service, budget);
    let mut found = Found::default();
    let mut walk = Walk {
        ids: HashMap::default(),
        from: vec![(u32::MAX, Label("", None))],
        standings: vec![standing(service, &first)],
        back: Vec::new(),
    };
    walk.ids.insert(hash(&first), 0);
    let mut queue = VecDeque::from([(0, first)]);
    while let Some((id, toy)) = queue.pop_front() {
        if !has_a_way_out(&toy) {
            found.note("I6b maintenance accepts an order", service, &walk, id);
        }
        for Next { label, way, toy: next } in super::successors(service, &toy) {
            found.moves += 1;
            let new = u32::try_from(walk.from.len()).expect("fewer than 2^32 states");
            let to = *walk.ids.entry(hash(&next)).or_insert(new);
            if way == Way::On {
                walk.back.push((to, id));
            }
            if to == new {
                walk.from.push((id, label));
                walk.standings.push(standing(service, &next));
                match next.broken {
                    Some(promise) => found.note(promise.words(), service, &walk, to),
                    None => queue.push_back((to, next)),
                }
            }
        }
    }
    found.states = walk.from.len();
    found.dead_ends(service, &mut walk);
    found
}

impl Found {
    fn note(&mut self, promise: &'static str, service: &Service, walk: &Walk, id: u32) {
        if self.broken.iter().all(|breach| breach.promise != promise) {
            self.broken.push(Breach { promise, service: *service, trace: walk.trace(id) });
        }
    }

    /// From everywhere a resting state can be reached, and from where a healthy version is due, a serving one.
    fn dead_ends(&mut self, service: &Service, walk: &mut Walk) {
        walk.back.sort_unstable();
        walk.back.dedup();
        let rests = walk.leading_to(|standing| standing != Standing::Moving);
        let up = walk.leading_to(|standing| matches!(standing, Standing::Up | Standing::Broken));
        for (id, standing) in walk.standings.iter().enumerate() {
            let promise = match standing {
                _ if !rests[id] => "I6 there is always an end",
                Standing::Due if !up[id] => "I7 a healthy generation comes up",
                Standing::DueElsewhere => "I7 a sick version does not keep a healthy one from serving",
                _ => continue,
            };
            let id = u32::try_from(id).expect("fewer than 2^32 states");
            self.note(promise, service, walk, id);
        }
    }
}

impl Walk {
    fn trace(&self, mut id: u32) -> Vec<Label> {
        let mut labels = Vec::new();
        while let Some((from, label)) = self.from.get(id as usize).filter(|(from, _)| *from != u32::MAX) {
            labels.push(*label);
            id = *from;
        }
        labels.reverse();
        labels
    }

    /// Which states lead, by ways on alone, to a state of this standing.
    fn leading_to(&self, goal: impl Fn(Standing) -> bool) -> Vec<bool> {
        let mut leads: Vec<bool> = self.standings.iter().map(|standing| goal(*standing)).collect();
        let mut open: Vec<u32> = (0..).zip(&leads).filter(|(_, leads)| **leads).map(|(id, _)| id).collect();
        while let Some(to) = open.pop() {
            let first = self.back.partition_point(|(known, _)| *known < to);
            for (_, from) in self.back[first..].iter().take_while(|(known, _)| *known == to) {
                if !std::mem::replace(&mut leads[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        leads
    }
}

fn has_a_way_out(toy: &Toy) -> bool {
    let Phase::Maintenance(maintenance) = &toy.state.phase else { return true };
    [Order::Retry, Order::RecoverRollback, Order::Accept].into_iter().any(|order| {
        let event: Event = cast::ordered(cast::run_id(50), order, &maintenance.run.settings);
        step(&toy.state, &event).is_ok()
    })
}

fn standing(service: &Service, toy: &Toy) -> Standing {
    let Toy { state, world, broken, .. } = toy;
    if broken.is_some() {
        return Standing::Broken;
    }
    if !is_resting(state) {
        return Standing::Moving;
    }
    let Some(current) = &state.current else { return Standing::Resting };
    if matches!(state.phase, Phase::Maintenance(_)) || state.wish == Wish::Stopped || state.parked.is_some() {
        return Standing::Resting;
    }
    let ours = world.process.as_ref().is_some_and(|live| live.owner == Owner::Keeper);
    if ours && matches!(world.front, Front::Absent | Front::Shows(Posture::Serve)) {
        return Standing::Up;
    }
    if state.tree == Tree::Damaged || !world.damaged.is_empty() {
        return Standing::Resting;
    }
    if service.is_healthy(&current.release) {
        return Standing::Due;
    }
    match &state.previous {
        Some(kept) if service.is_healthy(&kept.installed.release) => Standing::DueElsewhere,
        Some(_) | None => Standing::Resting,
    }
}

/// Two independent 64-bit lanes: with some ten million states a collision is about as likely as a broken memory cell.
fn hash(toy: &Toy) -> u128 {
    let mut lanes = Lanes(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
    toy.hash(&mut lanes);
    let Lanes(a, b) = lanes;
    (u128::from(a ^ (a >> 29)) << 64) | u128::from(b ^ (b >> 31))
}

struct Lanes(u64, u64);

impl Lanes {
    fn take(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.1 = (self.1 ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(37);
    }
}

impl Hasher for Lanes {
    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.take(u64::from_le_bytes(word) ^ chunk.len() as u64);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.take(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.take(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.take(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.take(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.take(value.unsigned_abs() as u64);
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = (value >> 64) as u64 ^ value as u64;
    }
}

/// Sums of several explorations: figures, and the shortest way to each broken promise.
pub(crate) fn gather(all: Vec<Found>) -> Found {
    let mut sum = Found::default();
    for found in all {
        sum.states += found.states;
        sum.moves += found.moves;
        for breach in found.broken {
            match sum.broken.iter_mut().find(|known| known.promise == breach.promise) {
                Some(known) if known.trace.len() > breach.trace.len() => *known = breach,
                Some(_) => {}
                None => sum.broken.push(breach),
            }
        }
    }
    sum
}
