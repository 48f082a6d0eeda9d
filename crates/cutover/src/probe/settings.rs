//! What to ask a service, parsed once: a probe that cannot be put is found when the configuration is read.

use super::Error;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a service is asked: directly, through the front's probe lane, or on its public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; the `Host` header names it.
    Tcp(SocketAddr),
    /// A Unix socket (the front's probe lane).
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// What the `Host` header says, since the path cannot: the service's own address.
        host: Authority,
    },
}

impl Address {
    /// A Unix socket whose requests name `host` (`127.0.0.1:18789`).
    ///
    /// # Errors
    /// [`Error::Authority`].
    pub fn unix(path: impl Into<PathBuf>, host: &str) -> Result<Self, Error> {
        let host = host.parse().map_err(|_| Error::Authority { authority: host.to_owned() })?;
        Ok(Self::Unix { path: path.into(), host })
    }

    pub(super) fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix { host, .. } => host.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything that is asked in one round. What is not configured does not apply, except a version.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// Is it alive? Any 2xx says yes, any 5xx no.
    pub live: Option<HttpCheck>,
    /// Is it ready for requests? Any 2xx says yes, any 5xx no.
    pub ready: Option<HttpCheck>,
    /// Which version is it? Without this the version is a missing fact, and nothing can be verified.
    pub version: Option<VersionProbe>,
    /// A page that a user opens: must be HTML.
    pub page: Option<HttpCheck>,
    /// What a user's WebSocket is greeted with. Not needed beside [`Ask::OpenClawHello`], which waits for the greeting.
    pub first_frame: Option<FirstFrame>,
    /// How long one exchange may take, from connecting to the last byte. All exchanges of a round run at once, so this
    /// is also the limit of a round.
    pub request_limit: Duration,
}

impl ProbeSettings {
    /// How many exchanges a round is.
    #[must_use]
    pub fn questions(&self) -> u64 {
        let asked = [
            self.live.is_some(),
            self.ready.is_some(),
            self.version.is_some(),
            self.page.is_some(),
            self.first_frame.is_some(),
        ];
        asked.into_iter().map(u64::from).sum()
    }
}

/// One GET request.
#[derive(Clone, Debug)]
pub struct HttpCheck {
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
}

impl HttpCheck {
    /// A GET of `path` with `headers` beside `Host`. Header values are never shown.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Header`].
    pub fn new<'a>(path: &str, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut checked = HeaderMap::new();
        for (name, value) in headers {
            let refused = || Error::Header { name: name.to_owned() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
            value.set_sensitive(true);
            checked.append(key, value);
        }
        Ok(Self { path: request_path(path)?, headers: checked })
    }
}

fn request_path(path: &str) -> Result<PathAndQuery, Error> {
    match path.parse() {
        Ok(parsed) if path.starts_with('/') && !path.contains('#') => Ok(parsed),
        _ => Err(Error::Path { path: path.to_owned() }),
    }
}

/// Where the service says which version it is, and what else stands in the same answer.
#[derive(Clone, Debug)]
pub struct VersionProbe {
    /// How the document is obtained.
    pub ask: Ask,
    /// Where in it the values are.
    pub fields: Fields,
}

/// How to obtain the document that holds a service's version.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A 2xx answer whose body is JSON.
    Http(HttpCheck),
    /// The payload of OpenClaw's `hello-ok`, as its simplest client gets it.
    OpenClawHello(Hello),
}

/// OpenClaw's WebSocket handshake.
#[derive(Clone, Debug)]
pub struct Hello {
    pub(super) path: PathAndQuery,
    pub(super) token: Option<Token>,
}

impl Hello {
    /// The handshake on `path` (normally `/`) with the gateway's shared token, where it has one.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn new(path: &str, token: Option<Token>) -> Result<Self, Error> {
        Ok(Self { path: request_path(path)?, token })
    }
}

/// Where values are in a document.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The version.
    pub version: Pointer,
    /// The build's id.
    pub build: Field,
    /// The id that changes with each start.
    pub instance: Field,
    /// The plugins that run: an array of `"name@version"` or of `{name or id, version}`.
    pub plugins: Field,
}

impl Fields {
    /// Where OpenClaw's hello has them. Versions before 2026.9 have neither build nor boot id.
    #[must_use]
    pub fn of_openclaw() -> Self {
        Self {
            version: Pointer("/server/version".to_owned()),
            build: Field::WherePresent(Pointer("/server/buildId".to_owned())),
            instance: Field::WherePresent(Pointer("/server/bootId".to_owned())),
            plugins: Field::WherePresent(Pointer("/snapshot/health/plugins/loaded".to_owned())),
        }
    }
}

/// Whether a value must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The service has no such thing.
    Unasked,
    /// Its absence is a missing fact.
    Required(Pointer),
    /// Some versions of the service have it; its absence means that it does not apply.
    WherePresent(Pointer),
}

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(pub(super) String);

impl Pointer {
    /// Parses a pointer: empty (the whole document) or beginning with `/`.
    ///
    /// # Errors
    /// [`Error::Pointer`].
    pub fn new(pointer: &str) -> Result<Self, Error> {
        if pointer.is_empty() || pointer.starts_with('/') {
            return Ok(Self(pointer.to_owned()));
        }
        Err(Error::Pointer { pointer: pointer.to_owned() })
    }
}

/// A greeting that a WebSocket client must get without asking.
#[derive(Clone, Debug)]
pub struct FirstFrame {
    pub(super) check: HttpCheck,
    pub(super) pointer: Pointer,
    pub(super) equals: String,
}

impl FirstFrame {
    /// The first text frame of a WebSocket that is opened with the GET of `check` is JSON and has the string `equals` at
    /// `pointer`.
    #[must_use]
    pub fn new(check: HttpCheck, pointer: Pointer, equals: impl Into<String>) -> Self {
        Self { check, pointer, equals: equals.into() }
    }
}

/// A secret that no log and no report shows.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
