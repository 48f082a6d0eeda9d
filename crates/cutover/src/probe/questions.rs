//! What to ask a service, as plain data that can be handed to another process. What is asked with is built from it there.

use super::Error;
use super::settings::{
    Ask, Field, Fields, FirstFrame, Hello, HttpCheck, Pointer, ProbeSettings, Token, VersionProbe,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Every question, with all placeholders filled in. It may hold secrets: it has no Debug.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// Path of the liveness endpoint.
    pub live: Option<String>,
    /// Path of the readiness endpoint.
    pub ready: Option<String>,
    /// Path of a page that users open.
    pub page: Option<String>,
    /// What a user's WebSocket is greeted with.
    pub websocket: Option<Greeting>,
    /// Headers of every HTTP question, beside `Host`.
    pub headers: Vec<(String, String)>,
    /// How the version is told.
    pub version: VersionQuestion,
    /// How long one exchange may take.
    pub request_limit: Duration,
}

/// A greeting that a WebSocket client gets without asking.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Where the WebSocket is opened.
    pub path: String,
    /// Where in the first frame to look.
    pub pointer: String,
    /// What stands there.
    pub equals: String,
}

/// How a service is asked for its version.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionQuestion {
    /// A path that answers with JSON, and pointers into it.
    Http {
        /// The path.
        path: String,
        /// Where the version is.
        version: String,
        /// Where a build id is.
        build: Option<String>,
        /// Where an instance id is.
        instance: Option<String>,
        /// Where the plugins are.
        plugins: Option<String>,
    },
    /// OpenClaw's handshake.
    OpenClaw {
        /// Its token.
        token: String,
    },
}

impl ProbeSettings {
    /// What asks these questions.
    ///
    /// # Errors
    /// The first that cannot be put.
    pub fn of(questions: &Questions) -> Result<Self, Error> {
        let headers = || questions.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let check = |path: &str| HttpCheck::new(path, headers());
        let asked = |path: &Option<String>| path.as_deref().map(check).transpose();
        let first_frame = |greeting: &Greeting| -> Result<FirstFrame, Error> {
            Ok(FirstFrame::new(check(&greeting.path)?, Pointer::new(&greeting.pointer)?, &greeting.equals))
        };
        let version = match &questions.version {
            VersionQuestion::Http { path, version, build, instance, plugins } => VersionProbe {
                ask: Ask::Http(check(path)?),
                fields: Fields {
                    version: Pointer::new(version)?,
                    build: field(build.as_deref())?,
                    instance: field(instance.as_deref())?,
                    plugins: field(plugins.as_deref())?,
                },
            },
            VersionQuestion::OpenClaw { token } => VersionProbe {
                ask: Ask::OpenClawHello(Hello::new("/", Some(Token::new(token)))?),
                fields: Fields::of_openclaw(),
            },
        };
        Ok(Self {
            live: asked(&questions.live)?,
            ready: asked(&questions.ready)?,
            version: Some(version),
            page: asked(&questions.page)?,
            first_frame: questions.websocket.as_ref().map(first_frame).transpose()?,
            request_limit: questions.request_limit,
        })
    }
}

fn field(pointer: Option<&str>) -> Result<Field, Error> {
    Ok(match pointer {
        Some(pointer) => Field::Required(Pointer::new(pointer)?),
        None => Field::Unasked,
    })
}
