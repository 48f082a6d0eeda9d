//! Calls over a WebSocket: which of them wait for their answer. A call is a message that is a JSON object with an
//! `id` and a `method`, and its answer one with the same `id` and no `method`, as JSON-RPC and its relatives have it.

use std::collections::HashSet;

use serde_json::Value;

use crate::frames::Ear;

/// A longer id is none: no client writes one, and each is kept until its answer comes.
const ID_MAX: usize = 128;
/// So many calls of one client may wait at once; after that they are no longer told apart.
const OPEN_MAX: usize = 4096;

/// Longer than any name or method that is asked for, however it is escaped.
const WORD_MAX: usize = 256;

/// An id as JSON, written in the one way in which it is compared.
pub(crate) type Id = Box<str>;

/// What a message was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Call(Id),
    Answer(Id),
}

/// Hears the messages of one direction.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// Of the message that is being heard.
    envelope: Envelope,
    said: Vec<Said>,
}

impl Hearing {
    /// What was said since the last question.
    pub(crate) fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }
}

impl Ear for Hearing {
    fn begin(&mut self) {
        self.envelope = Envelope::default();
    }

    fn hear(&mut self, byte: u8) {
        self.envelope.read(byte);
    }

    fn end(&mut self) {
        self.said.extend(self.envelope.said());
    }
}

/// The client's calls that have no answer yet.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: HashSet<Id>,
    /// Whether they were too many to be told apart.
    lost: bool,
    is_spoken: bool,
}

impl Calls {
    /// Takes what the client said, and then what the service said.
    pub(crate) fn take(&mut self, client: Vec<Said>, service: Vec<Said>) {
        for said in client {
            // The client's answer to a call of the service is none of these.
            let Said::Call(id) = said else { continue };
            self.is_spoken = true;
            self.open.insert(id);
            self.lost |= self.open.len() > OPEN_MAX;
        }
        if self.lost {
            self.open.clear();
        }
        for said in service {
            if let Said::Answer(id) = said {
                self.open.remove(&id);
            }
        }
    }

    /// How many wait for their answer; `None` where the client does not call this way.
    pub(crate) fn open(&self) -> Option<usize> {
        (self.is_spoken && !self.lost).then_some(self.open.len())
    }
}

/// What stands at the top level of a message's object, read byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
    is_broken: bool,
    place: Place,
    name: Vec<u8>,
    id: Vec<u8>,
    method: Vec<u8>,
    has_method: bool,
    event: Vec<u8>,
    has_event: bool,
}

/// What is read at the top level.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Name,
    Id,
    Method,
    Event,
    Other,
}

impl Envelope {
    pub(crate) fn read(&mut self, byte: u8) {
        if self.is_broken {
            return;
        }
        if self.is_in_string {
            self.keep(byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' if self.depth == 0 => self.depth = 1,
            _ if self.depth == 0 => self.is_broken = true,
            b',' if self.depth == 1 => {
                self.place = Place::Name;
                self.name.clear();
            }
            b':' if self.depth == 1 => self.begin_value(),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {
                self.keep(byte);
                self.is_in_string = byte == b'"';
            }
        }
    }

    fn begin_value(&mut self) {
        // Of two with one name the last one counts, as it does for who reads the message.
        self.place = match word(&self.name).as_deref() {
            Some("id") => {
                self.id.clear();
                Place::Id
            }
            Some("method") => {
                self.method.clear();
                self.has_method = true;
                Place::Method
            }
            Some("event") => {
                self.event.clear();
                self.has_event = true;
                Place::Event
            }
            _ => Place::Other,
        };
    }

    /// Keeps what has to be known, and of it not more than is needed to know it.
    fn keep(&mut self, byte: u8) {
        let (kept, max) = match self.place {
            Place::Name => (&mut self.name, WORD_MAX),
            Place::Id => (&mut self.id, ID_MAX),
            Place::Method => (&mut self.method, WORD_MAX),
            Place::Event => (&mut self.event, WORD_MAX),
            Place::Other => return,
        };
        if self.depth == 1 && kept.len() <= max {
            kept.push(byte);
        }
    }

    /// The method, once its value has been read to its end.
    pub(crate) fn method(&self) -> Option<String> {
        let is_read = self.place != Place::Method || self.depth == 0;
        (self.has_method && is_read).then(|| word(&self.method)).flatten()
    }

    /// The name of the event, once its value has been read to its end.
    pub(crate) fn event(&self) -> Option<String> {
        let is_read = self.place != Place::Event || self.depth == 0;
        (self.has_event && is_read).then(|| word(&self.event)).flatten()
    }

    /// The id, once its value has been read to its end.
    pub(crate) fn id(&self) -> Option<Id> {
        let is_read = self.place != Place::Id || self.depth == 0;
        (is_read && self.id.len() <= ID_MAX)
            .then(|| serde_json::from_slice(&self.id).ok().as_ref().and_then(id))
            .flatten()
    }

    /// Whether it can be no call and no answer whatever follows.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What the whole message was.
    pub(crate) fn said(&self) -> Option<Said> {
        if self.is_broken || self.depth != 0 || self.is_in_string {
            return None;
        }
        let id = self.id()?;
        Some(if self.has_method { Said::Call(id) } else { Said::Answer(id) })
    }
}

/// An id, if a value can be one: a string or a number. Both ends may write the same one differently.
pub(crate) fn id(value: &Value) -> Option<Id> {
    match value {
        Value::String(_) => Some(value.to_string().into()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if !number.is_i64() && !number.is_u64() => float.to_string().into(),
            _ => number.to_string().into(),
        }),
        _ => None,
    }
}

/// A string as it stands in a message, without its escapes.
fn word(raw: &[u8]) -> Option<String> {
    (raw.len() <= WORD_MAX).then(|| serde_json::from_slice(raw).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<Said> {
        let mut hearing = Hearing::default();
        hearing.begin();
        text.bytes().for_each(|byte| hearing.hear(byte));
        hearing.end();
        hearing.take().pop()
    }

    fn call(id: &str) -> Option<Said> {
        Some(Said::Call(id.into()))
    }

    fn answer(id: &str) -> Option<Said> {
        Some(Said::Answer(id.into()))
    }

    #[test]
    fn a_call_has_an_id_and_a_method_at_the_top_and_an_answer_has_no_method() {
        assert_eq!(
            said(r#"{"type":"req","id":"s1","method":"health","params":{"id":"no"}}"#),
            call("\"s1\"")
        );
        assert_eq!(said(r#" { "jsonrpc":"2.0", "method" : "a" , "id" : 7 } "#), call("7"));
        assert_eq!(said(r#"{"type":"res","id":"s1","ok":true,"payload":{"method":1}}"#), answer("\"s1\""));
        assert_eq!(said(r#"{"result":["{",{"id":1},"\"}"],"id":-3.5}"#), answer("-3.5"));
        assert_eq!(said(r#"{"a":"id","b":"method","id":"x,\"}y"}"#), answer(r#""x,\"}y""#));
        assert_eq!(said(r#"{"\u0069d":1,"id":2,"m\u0065thod":"a"}"#), call("2"), "escaped, and twice");
        assert_eq!(said(r#"{"id":"\u00e9\/"}"#), answer("\"é/\""), "both ends may write it in their own way");
        assert_eq!(said(r#"{"id":7.0}"#), answer("7"));
    }

    #[test]
    fn what_is_no_object_with_an_id_is_neither() {
        for text in [
            "",
            "hello",
            "[1]",
            r#"[{"id":1,"method":"a"}]"#,
            r#"{"type":"event","event":"tick","payload":{"id":1}}"#,
            r#"{"jsonrpc":"2.0","method":"told"}"#,
            r#"{"id":null,"error":1}"#,
            r#"{"id":1"#,
            r#"{"id":1} and more"#,
            r#"}{"id":1}"#,
            "\"id\":1}",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
        assert_eq!(said(&format!(r#"{{"id":"{}"}}"#, "x".repeat(ID_MAX))), None);
    }

    #[test]
    fn a_call_waits_until_its_own_answer_comes() {
        let mut calls = Calls::default();
        calls.take(Vec::new(), said(r#"{"id":1}"#).into_iter().collect());
        assert_eq!(calls.open(), None, "nobody has called");
        let (one, two) = (said(r#"{"id":1,"method":"a"}"#), said(r#"{"id":"1","method":"a"}"#));
        calls.take(one.into_iter().chain(two).collect(), Vec::new());
        assert_eq!(calls.open(), Some(2));
        calls.take(Vec::new(), said(r#"{"id":2}"#).into_iter().collect());
        calls.take(Vec::new(), said(r#"{"id":1}"#).into_iter().collect());
        assert_eq!(calls.open(), Some(1));
        calls.take(Vec::new(), said(r#"{"id":"1"}"#).into_iter().collect());
        assert_eq!(calls.open(), Some(0));
    }

    #[test]
    fn a_client_with_endlessly_many_open_calls_is_no_longer_told_apart() {
        let mut calls = Calls::default();
        let many = (0..=OPEN_MAX).map(|id| Said::Call(id.to_string().into()));
        calls.take(many.collect(), Vec::new());
        assert_eq!(calls.open(), None);
    }
}
