//! Whether a service has work under way, as it says itself. Knows how to ask; must not know what is done with the answer.

use super::settings::{Address, Hello, HttpCheck, Pointer};
use super::{Error, hello, http};
use serde_json::Value;
use std::time::Duration;

/// How a service is asked for its idleness.
#[derive(Clone, Debug)]
pub struct IdleQuestion {
    /// How the document is obtained.
    pub ask: IdleAsk,
    /// Where in it `true` says that nothing is under way.
    pub pointer: Pointer,
}

/// How to obtain the document that tells of a service's work. Asking must change nothing: no lease, no refusal of new work.
#[derive(Clone, Debug)]
pub enum IdleAsk {
    /// A 2xx answer whose body is JSON.
    Http(HttpCheck),
    /// The payload with which an OpenClaw gateway answers a method, as its simplest client gets it.
    OpenClaw {
        /// The handshake.
        hello: Hello,
        /// The method.
        method: String,
    },
}

/// Whether nothing is under way. Takes at most `limit`.
///
/// # Errors
/// Why that is not known.
pub async fn is_idle(question: &IdleQuestion, address: &Address, limit: Duration) -> Result<bool, Error> {
    let asked = async {
        let document = match &question.ask {
            IdleAsk::Http(check) => {
                let answer = http::get(address, check, |_| {}).await?;
                if !answer.status.is_success() {
                    return Err(Error::Status { status: answer.status.as_u16() });
                }
                serde_json::from_slice(&answer.body).map_err(|source| Error::Json { source })?
            }
            IdleAsk::OpenClaw { hello, method } => hello::call(address, hello, method).await?,
        };
        told(&document, &question.pointer)
    };
    tokio::time::timeout(limit, asked).await.unwrap_or(Err(Error::Unanswered { limit }))
}

fn told(document: &Value, pointer: &Pointer) -> Result<bool, Error> {
    let pointer = || pointer.0.clone();
    match document.pointer(&pointer()) {
        Some(Value::Bool(idle)) => Ok(*idle),
        Some(other) => Err(Error::WrongKind { pointer: pointer(), kind: kind(other) }),
        None => Err(Error::NoValue { pointer: pointer() }),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_boolean_is_an_answer() {
        let pointer = Pointer::new("/safe").unwrap();
        assert!(told(&json!({"safe": true}), &pointer).unwrap());
        assert!(!told(&json!({"safe": false}), &pointer).unwrap());
        for answer in [json!({}), json!({"safe": "true"}), json!({"safe": 1}), json!({"safe": null})] {
            assert!(told(&answer, &pointer).is_err(), "{answer}");
        }
    }
}
