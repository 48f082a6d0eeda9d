//! The WebSockets whose calls may be claimed, and the daemon that answers them. Without a daemon a claimed call is told to
//! come again; one that an earlier daemon left unanswered is offered to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Claim, Claimed, Say};

/// How many claimed calls of one WebSocket may wait for their answers.
const WAITING_MAX: usize = 16;

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
    says: mpsc::UnboundedSender<Say>,
    waiting: Vec<(Instant, Claimed)>,
}

/// A WebSocket's place among them; given up when it is dropped.
pub(crate) struct Place {
    claims: Arc<Claims>,
    number: u64,
    pub(crate) claim: Arc<Claim>,
    pub(crate) says: mpsc::UnboundedReceiver<Say>,
}

impl Claims {
    /// What is claimed from now on.
    pub(crate) fn set(&self, claim: Option<Claim>) {
        self.lock().claim = claim.map(Arc::new);
    }

    /// A new WebSocket's place, if anything is claimed.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut inner = self.lock();
        let claim = inner.claim.clone()?;
        inner.last += 1;
        let (number, (sender, says)) = (inner.last, mpsc::unbounded_channel());
        inner.open.insert(number, Party { says: sender, waiting: Vec::new() });
        Some(Place { claims: Arc::clone(self), number, claim, says })
    }

    /// A daemon attends: it gets what is claimed from now on, and what is not answered yet.
    pub(crate) fn attend(self: &Arc<Self>) -> Attendance {
        let (sender, claimed) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        for (since, call) in inner.open.values().flat_map(|party| &party.waiting) {
            // Its receiver is in hand.
            let _ = sender.send(Claimed { age: since.elapsed(), ..call.clone() });
        }
        inner.daemon = Some(sender.clone());
        Attendance { claims: Arc::clone(self), sender, claimed }
    }

    /// Passes on what the daemon says; answers whether there was somebody to say it to.
    pub(crate) fn say(&self, say: Say) -> bool {
        let mut inner = self.lock();
        let Some(party) = inner.open.get_mut(&say.connection) else { return false };
        if let Some(id) = &say.answers {
            party.waiting.retain(|(_, waiting)| waiting.call["id"] != *id);
        }
        party.says.send(say).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Gives a call to the daemon. Answers whether there is one that takes it.
    pub(crate) fn offer(&self, call: Value, scopes: Vec<String>, protocol: Option<u64>) -> bool {
        let claimed =
            Claimed { connection: self.number, scopes, protocol, call, age: std::time::Duration::ZERO };
        let mut inner = self.claims.lock();
        let Some(daemon) = inner.daemon.clone() else { return false };
        let Some(party) = inner.open.get_mut(&self.number) else { return false };
        if party.waiting.len() >= WAITING_MAX || daemon.send(claimed.clone()).is_err() {
            return false;
        }
        party.waiting.push((Instant::now(), claimed));
        true
    }

    /// Whether a claimed call of this WebSocket is not answered yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.claims.lock().open.get(&self.number).is_some_and(|party| !party.waiting.is_empty())
    }
}

impl Drop for Place {
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
