//! What is taken out of a WebSocket whose calls may be claimed: from the client its claimed calls, from the service the
//! answer that opens the session and some events, to put into them what the daemon says, and its goodbye while the client waits
//! for the daemon.

use std::sync::Arc;

use serde_json::Value;

use crate::Place;
use crate::calls::Envelope;
use crate::claims::{Seat, Turn};
use crate::frames::{Control, text_frame};
use crate::sieve::{Judgement, Sorter};

/// A call whose method has not come in so many bytes is refused: it might be a claimed one.
const UNJUDGED_MAX: usize = 256 * 1024;
/// An event whose name has not come in so many bytes passes. Gateways write it first.
const UNNAMED_MAX: usize = 64 * 1024;
/// A longer answer is not looked at.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// RFC 6455 section 7.4.1.
const PROTOCOL_ERROR: (u16, &str) = (1002, "a control frame is too long");
/// RFC 6455 section 7.4.1.
const INVALID_DATA: (u16, &str) = (1007, "a call that cannot be read");
/// RFC 6455 section 7.4.1.
const TOO_BIG: (u16, &str) = (1009, "the method of a call must come first");

/// From the client to the service.
pub(crate) struct FromClient(pub(crate) Arc<Seat>);

impl FromClient {
    fn is_claimed(&self, method: &str) -> bool {
        self.0.claim.prefixes.iter().any(|prefix| method.starts_with(prefix.as_str()))
    }

    fn refuse(&self, why: (u16, &'static str)) -> Judgement {
        self.0.turn(Turn::Refuse(why));
        Judgement::Drop
    }
}

impl Sorter for FromClient {
    fn judge(&mut self, envelope: &Envelope, bytes: usize, is_whole: bool) -> Judgement {
        let method = envelope.method();
        let is_claimed = method.as_deref().is_some_and(|method| self.is_claimed(method));
        if is_claimed || (method.is_some() && self.0.is_stranded()) {
            return if bytes > UNJUDGED_MAX { self.refuse(TOO_BIG) } else { Judgement::Take };
        }
        if self.0.is_stranded() && (is_whole || envelope.is_broken()) {
            return Judgement::Drop;
        }
        match method {
            Some(method) if method == self.0.claim.hello => {
                if !is_whole && bytes <= UNJUDGED_MAX {
                    return Judgement::Later;
                }
                if let Some(id) = envelope.id() {
                    self.0.begin(&id);
                }
                Judgement::Watch
            }
            // Of two methods the last one counts.
            Some(_) => Judgement::Watch,
            None if is_whole || envelope.is_broken() => Judgement::Pass,
            None if bytes > UNJUDGED_MAX => self.refuse(TOO_BIG),
            None => Judgement::Later,
        }
    }

    fn regrets(&mut self, envelope: &Envelope) -> bool {
        let is_claimed = envelope.method().is_some_and(|method| self.is_claimed(&method));
        if is_claimed {
            self.refuse(INVALID_DATA);
        }
        is_claimed
    }

    fn kept_max(&self) -> usize {
        2 * UNJUDGED_MAX
    }

    fn overflows(&mut self) -> Judgement {
        self.refuse(TOO_BIG)
    }

    fn violated(&mut self) {
        self.refuse(PROTOCOL_ERROR);
    }

    fn take(&mut self, text: Vec<u8>, _: Vec<u8>) -> Vec<u8> {
        let call = serde_json::from_slice::<Value>(&text);
        let is_taken = call.is_ok_and(|call| match call["method"].as_str() {
            Some(method) if text.len() <= UNJUDGED_MAX && self.is_claimed(method) => self.0.offer(call),
            _ => {
                self.0.put_off(&call["id"]);
                true
            }
        });
        if !is_taken {
            self.refuse(INVALID_DATA);
        }
        Vec::new()
    }

    fn passes(&mut self, control: &[u8]) -> bool {
        if !self.0.is_stranded() {
            return true;
        }
        match Control::read(control) {
            Some(Control::Ping(payload)) => self.0.turn(Turn::Pong(payload)),
            Some(Control::Close) => self.0.turn(Turn::Leave),
            Some(Control::Pong) | None => {}
        }
        false
    }
}

/// From the service to the client.
pub(crate) struct FromService(pub(crate) Arc<Seat>);

impl FromService {
    fn corrects(&self, event: &str) -> bool {
        self.0.claim_now().events.iter().any(|corrected| corrected.event == event)
    }

    /// The event as the daemon tells it, if that is another.
    fn corrected(&self, event: &str, mut message: Value) -> Option<Vec<u8>> {
        let claim = self.0.claim_now();
        let places = claim.events.iter().filter(|corrected| corrected.event == event);
        let is_changed = set(&mut message, places.map(|corrected| &corrected.place));
        is_changed.then(|| text_frame(message.to_string().as_bytes()))
    }

    /// What is left to judge once the session is open: which event it is, if it is one.
    fn judge_event(envelope: &Envelope, bytes: usize, is_whole: bool) -> Judgement {
        let is_known = envelope.event().is_some() || envelope.id().is_some();
        if is_known || is_whole || bytes > UNNAMED_MAX { Judgement::Pass } else { Judgement::Later }
    }
}

impl Sorter for FromService {
    fn judge(&mut self, envelope: &Envelope, bytes: usize, is_whole: bool) -> Judgement {
        if envelope.is_broken() || bytes > ANSWER_MAX {
            return Judgement::Pass;
        }
        if envelope.event().is_some_and(|event| self.corrects(&event)) {
            return Judgement::Take;
        }
        if !self.0.awaits(None) {
            return Self::judge_event(envelope, bytes, is_whole);
        }
        match envelope.id() {
            Some(id) if self.0.awaits(Some(&id)) => Judgement::Take,
            None if !is_whole && bytes <= UNJUDGED_MAX => Judgement::Later,
            _ => Judgement::Pass,
        }
    }

    fn kept_max(&self) -> usize {
        2 * ANSWER_MAX
    }

    fn overflows(&mut self) -> Judgement {
        Judgement::Pass
    }

    fn violated(&mut self) {
        self.0.turn(Turn::Refuse(PROTOCOL_ERROR));
    }

    fn take(&mut self, text: Vec<u8>, frames: Vec<u8>) -> Vec<u8> {
        let Ok(mut answer) = serde_json::from_slice::<Value>(&text) else { return frames };
        let event = answer["event"].as_str().filter(|event| self.corrects(event)).map(str::to_owned);
        if let Some(event) = event {
            return self.corrected(&event, answer).unwrap_or(frames);
        }
        let claim = Arc::clone(&self.0.claim);
        // Rights are taken once, from the first answer, whatever it says.
        let granted =
            answer.pointer(&claim.scopes).and_then(Value::as_array).filter(|_| answer["ok"] == true);
        let Some(granted) = granted else {
            self.0.open(Vec::new(), None);
            return frames;
        };
        let scopes = granted.iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect();
        let protocol = answer.pointer(&claim.protocol).and_then(Value::as_u64);
        self.0.open(scopes, protocol);
        if set(&mut answer, &claim.places) { text_frame(answer.to_string().as_bytes()) } else { frames }
    }

    fn passes(&mut self, control: &[u8]) -> bool {
        let is_farewell = matches!(Control::read(control), Some(Control::Close));
        if is_farewell && self.0.is_waiting() {
            self.0.turn(Turn::Farewell);
            return false;
        }
        true
    }
}

/// Puts into a message what it has to have, and takes out what it must not; answers whether it was changed.
fn set<'a>(message: &mut Value, places: impl IntoIterator<Item = &'a Place>) -> bool {
    let mut is_changed = false;
    for place in places {
        let Some((parent, name)) = place.pointer.rsplit_once('/') else { continue };
        let Some(parent) = message.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
        // `null` is as good as nothing.
        let there = parent.get(name).filter(|value| !value.is_null());
        if there == place.value.as_ref() {
            continue;
        }
        match &place.value {
            Some(value) => drop(parent.insert(name.to_owned(), value.clone())),
            // A schema in which the place may be absent need not allow `null`.
            None => drop(parent.remove(name)),
        }
        is_changed = true;
    }
    is_changed
}
