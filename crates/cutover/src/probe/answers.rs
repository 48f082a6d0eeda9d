//! One round of questions to a service, and its answers as facts.

use super::Error;
use super::hello::{self, Scope};
use super::http::{self, Answer};
use super::settings::{Address, Ask, Field, FirstFrame, HttpCheck, Pointer, ProbeSettings, VersionProbe};
use ::http::StatusCode;
use cutover_core::Seen;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Unix time in milliseconds, as the caller tells it.
pub type Clock<'a> = &'a (dyn Fn() -> u64 + Send + Sync);

/// The longest id or version that is taken for one, in bytes.
const ID_BYTES_MAX: usize = 256;
/// The most plugins that are listed.
const PLUGINS_MAX: usize = 1024;

/// What a service said of itself in one round at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswers {
    /// Its version.
    pub version: Seen<String>,
    /// Its build id.
    pub build: Seen<String>,
    /// Its own instance or boot id.
    pub service_instance: Seen<String>,
    /// Its liveness.
    pub live: Seen<bool>,
    /// Its readiness.
    pub ready: Seen<bool>,
    /// Its running plugins, sorted.
    pub plugins: Seen<Vec<String>>,
    /// Whether page and WebSocket are what a user expects.
    pub user_path: Seen<bool>,
    /// Which of these exchanges failed, as whoever counts those of clients counts them too.
    pub failed: Failed,
}

/// Exchanges of one round that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// Answered with status 500 and above.
    pub bad: u64,
    /// WebSockets that broke off.
    pub abnormal: u64,
}

/// Asks everything that is configured, at once, each question on a connection of its own. Takes at most
/// `settings.request_limit`; what is not answered by then is missing.
pub async fn observe_service(
    settings: &ProbeSettings,
    address: &Address,
    clock: Clock<'_>,
) -> ServiceAnswers {
    let round = Round::new(settings, address, clock);
    let (live, ready, document, page, first_frame) = tokio::join!(
        round.health(settings.live.as_ref(), "liveness"),
        round.health(settings.ready.as_ref(), "readiness"),
        round.document(settings.version.as_ref()),
        round.page(settings.page.as_ref()),
        round.first_frame(settings.first_frame.as_ref()),
    );
    let greeted = match (&settings.first_frame, &settings.version) {
        // The handshake begins with that frame: a second connection for it would only fill the service's log.
        (None, Some(VersionProbe { ask: Ask::OpenClawHello(_), .. })) => is_there(&document),
        _ => first_frame,
    };
    let user_path = both(page, greeted);
    let failed = round.failed();
    let Some(probe) = &settings.version else {
        let version = Seen::Missing {
            why: "no version probe is configured".to_owned(),
            at_ms: clock(),
            source: "configuration".to_owned(),
        };
        return ServiceAnswers {
            version,
            build: unasked("build id"),
            service_instance: unasked("instance id"),
            live,
            ready,
            plugins: unasked("plugin list"),
            user_path,
            failed,
        };
    };
    let fields = &probe.fields;
    let version = Field::Required(fields.version.clone());
    ServiceAnswers {
        version: field(&document, &version, "version", id_of),
        build: field(&document, &fields.build, "build id", id_of),
        service_instance: field(&document, &fields.instance, "instance id", id_of),
        live,
        ready,
        plugins: field(&document, &fields.plugins, "plugin list", plugins_of),
        user_path,
        failed,
    }
}

/// Whether a page is what a user expects, asked for once within `limit`.
///
/// # Errors
/// The answer says nothing about that, or there is none.
pub async fn shows_page(check: &HttpCheck, address: &Address, limit: Duration) -> Result<bool, Error> {
    let asked = async { is_page(&http::get(address, check, |_| ()).await?) };
    tokio::time::timeout(limit, asked).await.unwrap_or(Err(Error::Unanswered { limit }))
}

/// Where and within which limits this round asks.
struct Round<'a> {
    address: &'a Address,
    clock: Clock<'a>,
    limit: Duration,
    bad: AtomicU64,
    abnormal: AtomicU64,
}

impl<'a> Round<'a> {
    fn new(settings: &ProbeSettings, address: &'a Address, clock: Clock<'a>) -> Self {
        Self { address, clock, limit: settings.request_limit, bad: 0.into(), abnormal: 0.into() }
    }

    fn failed(&self) -> Failed {
        Failed { bad: self.bad.load(Relaxed), abnormal: self.abnormal.load(Relaxed) }
    }

    fn heard(&self, status: StatusCode) {
        if status.is_server_error() {
            self.bad.fetch_add(1, Relaxed);
        }
    }

    async fn get(&self, check: &HttpCheck) -> Result<Answer, Error> {
        http::get(self.address, check, |status| self.heard(status)).await
    }

    /// A WebSocket's end, counted if it was no proper one.
    async fn talk<T>(&self, talk: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let talked = talk.await;
        match &talked {
            Err(Error::Status { status }) if *status >= 500 => self.bad.fetch_add(1, Relaxed),
            // The front says the second of these for a service that said nothing.
            Err(Error::Closed { code: 1006 | 1012, .. } | Error::WebSocket { .. }) => {
                self.abnormal.fetch_add(1, Relaxed)
            }
            Ok(_) | Err(_) => 0,
        };
        talked
    }

    async fn health(&self, check: Option<&HttpCheck>, noun: &str) -> Seen<bool> {
        let Some(check) = check else { return unasked(noun) };
        let asked = async { says_well(&self.get(check).await?) };
        self.seen(asked, self.source_of(check)).await
    }

    async fn page(&self, check: Option<&HttpCheck>) -> Seen<bool> {
        let Some(check) = check else { return unasked("page") };
        let asked = async { is_page(&self.get(check).await?) };
        self.seen(asked, self.source_of(check)).await
    }

    async fn first_frame(&self, expected: Option<&FirstFrame>) -> Seen<bool> {
        let Some(expected) = expected else { return unasked("WebSocket greeting") };
        let source = format!("WebSocket {} at {}", expected.check.path.path(), self.address);
        self.seen(self.talk(hello::is_greeted(self.address, expected)), source).await
    }

    async fn document(&self, probe: Option<&VersionProbe>) -> Seen<Value> {
        let Some(probe) = probe else { return unasked("version") };
        match &probe.ask {
            Ask::Http(check) => {
                let asked = async {
                    let answer = self.get(check).await?;
                    if !answer.status.is_success() {
                        return Err(Error::Status { status: answer.status.as_u16() });
                    }
                    serde_json::from_slice(&answer.body).map_err(|source| Error::Json { source })
                };
                self.seen(asked, self.source_of(check)).await
            }
            Ask::OpenClawHello(handshake) => {
                let source = format!("OpenClaw hello at {}", self.address);
                self.seen(self.talk(hello::greet(self.address, handshake, Scope::Read)), source).await
            }
        }
    }

    fn source_of(&self, check: &HttpCheck) -> String {
        format!("GET {} at {}", check.path.path(), self.address)
    }

    async fn seen<T>(&self, asked: impl Future<Output = Result<T, Error>>, source: String) -> Seen<T> {
        let answered = tokio::time::timeout(self.limit, asked).await;
        let answered = answered.unwrap_or(Err(Error::Unanswered { limit: self.limit }));
        let at_ms = (self.clock)();
        match answered {
            Ok(value) => Seen::Yes { value, at_ms, source },
            Err(error) => Seen::Missing { why: error.why(), at_ms, source },
        }
    }
}

fn unasked<T>(noun: &str) -> Seen<T> {
    Seen::NotApplicable { why: format!("no {noun} is configured for this service") }
}

fn is_there(document: &Seen<Value>) -> Seen<bool> {
    match document {
        Seen::Yes { at_ms, source, .. } => Seen::Yes { value: true, at_ms: *at_ms, source: source.clone() },
        Seen::Missing { why, at_ms, source } => {
            Seen::Missing { why: why.clone(), at_ms: *at_ms, source: source.clone() }
        }
        Seen::NotApplicable { why } => Seen::NotApplicable { why: why.clone() },
    }
}

/// 2xx says yes, 5xx says no; anything else answers another question.
fn says_well(answer: &Answer) -> Result<bool, Error> {
    match answer.status {
        status if status.is_success() => Ok(true),
        status if status.is_server_error() => Ok(false),
        status => Err(Error::Status { status: status.as_u16() }),
    }
}

fn is_page(answer: &Answer) -> Result<bool, Error> {
    Ok(says_well(answer)? && is_html(answer))
}

fn is_html(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(4096)]).to_ascii_lowercase();
    answer.has_content_type("text/html") && (text.contains("<!doctype html") || text.contains("<html"))
}

/// Two parts of one fact: the part that says no, else the one that is missing, else both hold.
pub(super) fn both(first: Seen<bool>, second: Seen<bool>) -> Seen<bool> {
    match (first, second) {
        (no @ Seen::Yes { value: false, .. }, _) | (_, no @ Seen::Yes { value: false, .. }) => no,
        (missing @ Seen::Missing { .. }, _) | (_, missing @ Seen::Missing { .. }) => missing,
        (
            Seen::Yes { at_ms: first_ms, source: first, .. },
            Seen::Yes { at_ms: second_ms, source: second, .. },
        ) => Seen::Yes { value: true, at_ms: first_ms.max(second_ms), source: format!("{first}; {second}") },
        (yes @ Seen::Yes { .. }, Seen::NotApplicable { .. }) => yes,
        (Seen::NotApplicable { .. }, second) => second,
    }
}

/// One value of the document that was obtained, or why there is none.
fn field<T>(
    document: &Seen<Value>,
    field: &Field,
    noun: &str,
    read: fn(&Value, &Pointer) -> Result<T, Error>,
) -> Seen<T> {
    let pointer = match field {
        Field::Unasked => return unasked(noun),
        Field::Required(pointer) | Field::WherePresent(pointer) => pointer,
    };
    let (value, at_ms, source) = match document {
        Seen::Yes { value, at_ms, source } => (value, *at_ms, source.clone()),
        Seen::Missing { why, at_ms, source } => {
            return Seen::Missing { why: why.clone(), at_ms: *at_ms, source: source.clone() };
        }
        Seen::NotApplicable { why } => return Seen::NotApplicable { why: why.clone() },
    };
    match value.pointer(&pointer.0) {
        None if matches!(field, Field::WherePresent(_)) => Seen::NotApplicable {
            why: format!("this version of the service tells no {noun} ({})", pointer.0),
        },
        None => missing(&Error::NoValue { pointer: pointer.0.clone() }, at_ms, source),
        Some(found) => match read(found, pointer) {
            Ok(value) => Seen::Yes { value, at_ms, source },
            Err(error) => missing(&error, at_ms, source),
        },
    }
}

fn missing<T>(error: &Error, at_ms: u64, source: String) -> Seen<T> {
    Seen::Missing { why: error.why(), at_ms, source }
}

fn id_of(value: &Value, pointer: &Pointer) -> Result<String, Error> {
    let wrong = |kind| Error::WrongKind { pointer: pointer.0.clone(), kind };
    match value {
        Value::String(text) if text.is_empty() => Err(wrong("an empty string")),
        Value::String(text) if text.len() > ID_BYTES_MAX => Err(wrong("a very long string")),
        Value::String(text) if text.chars().any(char::is_control) => Err(wrong("control characters")),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Err(wrong("null")),
        Value::Bool(_) => Err(wrong("a truth value")),
        Value::Array(_) => Err(wrong("an array")),
        Value::Object(_) => Err(wrong("an object")),
    }
}

fn plugins_of(value: &Value, pointer: &Pointer) -> Result<Vec<String>, Error> {
    let wrong = |kind| Error::WrongKind { pointer: pointer.0.clone(), kind };
    let listed = value.as_array().ok_or_else(|| wrong("no array"))?;
    if listed.len() > PLUGINS_MAX {
        return Err(wrong("a very long array"));
    }
    let mut plugins = Vec::with_capacity(listed.len());
    for plugin in listed {
        if plugin.is_string() {
            plugins.push(id_of(plugin, pointer)?);
            continue;
        }
        let name = plugin.get("name").or(plugin.get("id")).ok_or_else(|| wrong("a plugin without a name"))?;
        let version = plugin.get("version").ok_or_else(|| wrong("a plugin without a version"))?;
        plugins.push(format!("{}@{}", id_of(name, pointer)?, id_of(version, pointer)?));
    }
    plugins.sort();
    Ok(plugins)
}
