//! Where a gateway's own files lie, in its own words.

use super::hello::{self, Scope};
use super::settings::{Address, Ask, ProbeSettings};
use super::{Error, VersionProbe};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Where OpenClaw's hello has them. It tells nobody but whom it grants `operator.admin`.
const STATE: &str = "/snapshot/stateDir";
const CONFIGURATION: &str = "/snapshot/configPath";

/// Where a gateway's files lie, as it tells. What it does not tell, or tells as no absolute path, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Its state's directory.
    pub state: Option<PathBuf>,
    /// Its configuration, whether or not the file is there.
    pub configuration: Option<PathBuf>,
}

impl Places {
    /// Whether nothing is told.
    #[must_use]
    pub fn are_untold(&self) -> bool {
        self.state.is_none() && self.configuration.is_none()
    }

    fn of(hello: &Value) -> Self {
        let told = |pointer: &str| {
            let path = hello.pointer(pointer).and_then(Value::as_str).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        Self { state: told(STATE), configuration: told(CONFIGURATION) }
    }
}

/// Asks a service where its files lie, within `settings.request_limit`; `None` of one that is not asked by OpenClaw's handshake.
///
/// # Errors
/// It does not answer, or refuses who asks.
pub async fn places(settings: &ProbeSettings, address: &Address) -> Result<Option<Places>, Error> {
    let Some(VersionProbe { ask: Ask::OpenClawHello(handshake), .. }) = &settings.version else {
        return Ok(None);
    };
    let limit = settings.request_limit;
    let asked = tokio::time::timeout(limit, hello::greet(address, handshake, Scope::Admin)).await;
    Ok(Some(Places::of(&asked.unwrap_or(Err(Error::Unanswered { limit }))?)))
}
