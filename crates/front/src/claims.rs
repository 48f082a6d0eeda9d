//! The WebSockets whose calls may be claimed, and the daemon that answers them. Without a daemon a claimed call is told to
//! come again; one that an earlier daemon left unanswered is offered to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::calls::{self, Id};
use crate::control::Word;
use crate::wire::LINE_MAX;
use crate::{Claim, Claimed, Say};

/// How many claimed calls of one WebSocket may wait for their answers.
const WAITING_MAX: usize = 16;
/// How many bytes they may have together, unless it is one alone. They are kept before anybody has logged in.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// When a call that nobody could answer is worth another try.
const RETRY_AFTER_MS: u64 = 1000;

/// What is claimed, who waits, and who answers.
#[derive(Default)]
pub(crate) struct Claims {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    claim: Option<Arc<Claim>>,
    last: u64,
    open: HashMap<u64, Party>,
    daemon: Option<mpsc::UnboundedSender<Claimed>>,
}

/// One WebSocket.
struct Party {
    turns: mpsc::UnboundedSender<Turn>,
    waiting: Vec<Waiting>,
}

/// A claimed call that is not answered yet.
struct Waiting {
    id: Id,
    since: Instant,
    claimed: Claimed,
    bytes: usize,
}

impl Party {
    fn has_room_for(&self, bytes: usize) -> bool {
        let waiting = self.waiting.iter().map(|waiting| waiting.bytes).sum::<usize>();
        self.waiting.is_empty() || (self.waiting.len() < WAITING_MAX && waiting + bytes <= WAITING_BYTES_MAX)
    }
}

/// The length of the line in which the daemon gets it; `None` where it could not read that: it is too long, or nested too
/// deeply.
fn line_bytes(claimed: &Claimed) -> Option<usize> {
    let line = serde_json::to_vec(&Word::Claimed(claimed.clone())).ok()?;
    (line.len() <= LINE_MAX && serde_json::from_slice::<Word>(&line).is_ok()).then_some(line.len())
}

/// What is to be done on a WebSocket next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The daemon, or the front in its place, says something.
    Say(Say),
    /// The service has said goodbye, and the client was not told.
    Farewell,
    /// The client waits for its pong.
    Pong(Vec<u8>),
    /// The client has said goodbye.
    Leave,
    /// The client has called in a way that cannot be judged.
    Refuse((u16, &'static str)),
}

/// A WebSocket's seat among them, and what is known of its session; given up when it is dropped.
pub(crate) struct Seat {
    claims: Arc<Claims>,
    number: u64,
    pub(crate) claim: Arc<Claim>,
    turns: mpsc::UnboundedSender<Turn>,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    /// The id of the one call that opens it.
    hello: Option<Id>,
    is_open: bool,
    scopes: Vec<String>,
    protocol: Option<u64>,
    /// Whether the client stays while there is no service to speak with.
    is_stranded: bool,
}

impl Claims {
    /// What is claimed from now on.
    pub(crate) fn set(&self, claim: Option<Claim>) {
        self.lock().claim = claim.map(Arc::new);
    }

    /// A new WebSocket's seat, if anything is claimed, and what is to be done on it.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<(Arc<Seat>, mpsc::UnboundedReceiver<Turn>)> {
        let mut inner = self.lock();
        let claim = inner.claim.clone()?;
        inner.last += 1;
        let (number, (turns, receiver)) = (inner.last, mpsc::unbounded_channel());
        inner.open.insert(number, Party { turns: turns.clone(), waiting: Vec::new() });
        let seat = Seat { claims: Arc::clone(self), number, claim, turns, session: Mutex::default() };
        Some((Arc::new(seat), receiver))
    }

    /// A daemon attends: it gets what is claimed from now on, and what is not answered yet.
    pub(crate) fn attend(self: &Arc<Self>) -> Attendance {
        let (sender, claimed) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        for waiting in inner.open.values().flat_map(|party| &party.waiting) {
            // Its receiver is in hand.
            let _ = sender.send(Claimed { age: waiting.since.elapsed(), ..waiting.claimed.clone() });
        }
        inner.daemon = Some(sender.clone());
        Attendance { claims: Arc::clone(self), sender, claimed }
    }

    /// Passes on what the daemon says; answers whether there was somebody to say it to.
    pub(crate) fn say(&self, say: Say) -> bool {
        let mut inner = self.lock();
        let Some(party) = inner.open.get_mut(&say.connection) else { return false };
        if let Some(id) = say.answers.as_ref().and_then(calls::id) {
            party.waiting.retain(|waiting| waiting.id != id);
        }
        party.turns.send(Turn::Say(say)).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Gives a claimed call to the daemon, or tells the client to come again. Answers whether it is one that can be
    /// answered: it has an id of its own, and the daemon can read it.
    pub(crate) fn offer(&self, call: Value) -> bool {
        let Some(id) = calls::id(&call["id"]) else { return false };
        let claimed = {
            let session = self.session();
            let (scopes, protocol) = (session.scopes.clone(), session.protocol);
            Claimed { connection: self.number, scopes, protocol, call, age: Duration::ZERO }
        };
        let Some(bytes) = line_bytes(&claimed) else { return false };
        let mut inner = self.claims.lock();
        let daemon = inner.daemon.clone();
        let Some(party) = inner.open.get_mut(&self.number) else { return false };
        if party.waiting.iter().any(|waiting| waiting.id == id) {
            return false;
        }
        let is_given =
            party.has_room_for(bytes) && daemon.is_some_and(|daemon| daemon.send(claimed.clone()).is_ok());
        if is_given {
            party.waiting.push(Waiting { id, since: Instant::now(), claimed, bytes });
        } else {
            drop(inner);
            self.put_off(&claimed.call["id"]);
        }
        true
    }

    /// Tells the client to call again.
    pub(crate) fn put_off(&self, id: &Value) {
        let error = json!({
            "code": "UNAVAILABLE",
            "message": "nobody can answer this at the moment",
            "retryable": true,
            "retryAfterMs": RETRY_AFTER_MS,
        });
        let message = json!({ "type": "res", "id": id, "ok": false, "error": error });
        self.turn(Turn::Say(Say { connection: self.number, answers: None, message, closes: false }));
    }

    /// What is claimed now, of new WebSockets; what was of this one where that is nothing.
    pub(crate) fn claim_now(&self) -> Arc<Claim> {
        self.claims.lock().claim.clone().unwrap_or_else(|| Arc::clone(&self.claim))
    }

    pub(crate) fn turn(&self, turn: Turn) {
        // A relay that has ended has no next turn.
        let _ = self.turns.send(turn);
    }

    /// Whether a claimed call of this WebSocket is not answered yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.claims.lock().open.get(&self.number).is_some_and(|party| !party.waiting.is_empty())
    }

    /// From here on there is no service to speak with.
    pub(crate) fn strand(&self) {
        self.session().is_stranded = true;
    }

    pub(crate) fn is_stranded(&self) -> bool {
        self.session().is_stranded
    }

    /// The client has sent the call that opens its session. Only the first one counts.
    pub(crate) fn begin(&self, id: &Id) {
        self.session().hello.get_or_insert_with(|| id.clone());
    }

    /// Whether the service's answer to that call is still to come, and whether this is its id.
    pub(crate) fn awaits(&self, id: Option<&Id>) -> bool {
        let session = self.session();
        !session.is_open && id.is_none_or(|id| session.hello.as_ref() == Some(id))
    }

    /// The service has answered it.
    pub(crate) fn open(&self, scopes: Vec<String>, protocol: Option<u64>) {
        let mut session = self.session();
        (session.is_open, session.scopes, session.protocol) = (true, scopes, protocol);
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.claims.lock().open.remove(&self.number);
    }
}

/// A daemon's attendance; it ends when it is dropped.
pub(crate) struct Attendance {
    claims: Arc<Claims>,
    sender: mpsc::UnboundedSender<Claimed>,
    pub(crate) claimed: mpsc::UnboundedReceiver<Claimed>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let mut inner = self.claims.lock();
        if inner.daemon.as_ref().is_some_and(|daemon| daemon.same_channel(&self.sender)) {
            inner.daemon = None;
        }
    }
}

/// A seat where calls of `update.` are claimed, without a daemon.
#[cfg(test)]
pub(crate) fn seat() -> (Arc<Seat>, mpsc::UnboundedReceiver<Turn>) {
    let claims = Arc::new(Claims::default());
    claims.set(Some(Claim {
        prefixes: vec!["update.".into()],
        hello: "connect".into(),
        scopes: "/scopes".into(),
        protocol: "/protocol".into(),
        places: Vec::new(),
        events: vec![crate::EventPlace {
            event: "update.available".into(),
            place: crate::Place { pointer: "/payload/available".into(), value: None },
        }],
    }));
    claims.enter().unwrap()
}
