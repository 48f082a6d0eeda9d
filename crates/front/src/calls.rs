//! Calls over a WebSocket: which of them wait for their answer. A call is a text message that is a JSON object with an
//! `id` and a `method`, and its answer one with the same `id` and no `method`, as JSON-RPC and its relatives have it.

use std::collections::HashSet;

use crate::frames::Ear;

/// A longer id is none: no client writes one, and each is kept until its answer comes.
const ID_MAX: usize = 128;
/// So many calls of one client may wait at once; after that they are no longer told apart.
const OPEN_MAX: usize = 4096;

/// An id as it stands in the message, quotes included.
type Id = Box<[u8]>;

/// What a message was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Call(Id),
    Answer(Id),
}

/// Hears the messages of one direction.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// Of the message that is being heard, if it is a text.
    envelope: Option<Envelope>,
    said: Vec<Said>,
}

impl Hearing {
    /// What was said since the last question.
    pub(crate) fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }
}

impl Ear for Hearing {
    fn begin(&mut self, is_text: bool) {
        self.envelope = is_text.then(Envelope::default);
    }

    fn hear(&mut self, byte: u8) {
        if let Some(envelope) = &mut self.envelope {
            envelope.read(byte);
        }
    }

    fn end(&mut self) {
        self.said.extend(self.envelope.take().and_then(Envelope::said));
    }
}

/// The client's calls that have no answer yet.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: HashSet<Id>,
    /// How many of them were given up as too many to be told apart.
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
struct Envelope {
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
    /// At the top level: whether a name is read, and not a value.
    is_in_name: bool,
    is_broken: bool,
    name: Vec<u8>,
    id: Vec<u8>,
    has_method: bool,
}

impl Envelope {
    fn read(&mut self, byte: u8) {
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
            b'{' if self.depth == 0 => {
                self.depth = 1;
                self.begin_name();
            }
            _ if self.depth == 0 => self.is_broken = true,
            b',' if self.depth == 1 => self.begin_name(),
            b':' if self.depth == 1 => {
                self.is_in_name = false;
                self.has_method |= self.name == b"\"method\"";
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {
                self.keep(byte);
                self.is_in_string = byte == b'"';
            }
        }
    }

    fn begin_name(&mut self) {
        self.is_in_name = true;
        self.name.clear();
    }

    /// Keeps what is a name or the id, of both not more than is needed to know it.
    fn keep(&mut self, byte: u8) {
        if self.depth != 1 {
            return;
        }
        if self.is_in_name {
            if self.name.len() <= b"\"method\"".len() {
                self.name.push(byte);
            }
        } else if self.name == b"\"id\"" && self.id.len() <= ID_MAX {
            self.id.push(byte);
        }
    }

    /// What the whole message was.
    fn said(self) -> Option<Said> {
        let is_whole = !self.is_broken && self.depth == 0 && !self.is_in_string;
        let is_id = !self.id.is_empty() && self.id.len() <= ID_MAX && self.id != b"null";
        (is_whole && is_id).then(|| {
            let id = self.id.into_boxed_slice();
            if self.has_method { Said::Call(id) } else { Said::Answer(id) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<Said> {
        let mut hearing = Hearing::default();
        hearing.begin(true);
        text.bytes().for_each(|byte| hearing.hear(byte));
        hearing.end();
        hearing.take().pop()
    }

    fn call(id: &str) -> Option<Said> {
        Some(Said::Call(id.as_bytes().into()))
    }

    fn answer(id: &str) -> Option<Said> {
        Some(Said::Answer(id.as_bytes().into()))
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
        let many = (0..=OPEN_MAX).map(|id| Said::Call(id.to_string().into_bytes().into()));
        calls.take(many.collect(), Vec::new());
        assert_eq!(calls.open(), None);
    }
}
