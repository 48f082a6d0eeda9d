//! Whether the gateway shows the page that every proof will ask for. Only its own word that there is none leaves it out.

use super::takeover::{check, line_at};
use crate::config::ServiceSettings;
use crate::predecessor::Predecessor;
use crate::probe::{Address, Error, shows_page};
use anyhow::bail;
use std::time::Duration;

/// What is written of a gateway without a page.
const NONE: &str = "# It serves none.\nprobe.page = \"\"\n";

/// What is known of the page.
pub(super) enum Page {
    /// It is as the configuration has it.
    AsConfigured,
    /// There is nothing at this path.
    None(String),
}

impl Page {
    /// Asks for it, as the configuration with a person's `lines` does in each proof.
    ///
    /// # Errors
    /// It is not known, or not what a person named.
    pub(super) async fn asked(
        old: &Predecessor,
        service: &ServiceSettings,
        lines: &[String],
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let Some(path) = &service.page else { return Ok(Self::AsConfigured) };
        let check = check(service, path)?;
        let why = match shows_page(&check, &Address::Tcp(old.addresses[0]), limit).await {
            Ok(true) => return Ok(Self::AsConfigured),
            Err(Error::Status { status: 404 }) if line_at(lines, &["probe", "page"]).is_none() => {
                return Ok(Self::None(path.clone()));
            }
            Ok(false) => "it answers with a status of 500 or above, or with what is no HTML".to_owned(),
            Err(error) => crate::causes::told(&error),
        };
        bail!(
            "the gateway did not show its page, which every proof would ask for, at {path}: {why}. Look again when it has less to do, \
             or name where the page is, with a slash at its end (`--set 'probe.page = \"/ui/\"'`), or ask for none \
             (`--set 'probe.page = \"\"'`)"
        )
    }

    /// Its line of the configuration.
    pub(super) fn configuration(&self) -> &'static str {
        match self {
            Self::AsConfigured => "",
            Self::None(_) => NONE,
        }
    }

    /// What is good to know of it.
    pub(super) fn note(&self) -> Option<String> {
        let Self::None(path) = self else { return None };
        Some(format!(
            "it serves no page at {path} (404), and none is asked for in proofs (`probe.page = \"\"`). If it has one below a basePath \
             (gateway.controlUi.basePath), name it: `--set 'probe.page = \"/ui/\"'`, with a slash at its end"
        ))
    }
}
