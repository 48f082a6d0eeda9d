//! What the settings of a service say that decides what a start of it is, each part as a digest: a person approves exactly
//! that. Rules are not among it, a run has them frozen; nor is what only surrounds the service, like logs and notices.

use super::site::Site;
use cutover_core::{Declared, Setup};
use sha2::{Digest as _, Sha256};
use std::fmt::Debug;

/// The parts that a proof reads.
pub(super) const PROOF: [&str; 4] = ["command", "addresses", "probe", "plugins"];

impl Site {
    /// What this daemon would start, as it read it when it began. Values may be secrets: only digests leave.
    pub(super) fn setup(&self) -> Setup {
        let settings = &self.settings;
        let paths = (&settings.live, &settings.ready, &settings.page, &settings.websocket);
        let parts: [(&str, &dyn Debug); 8] = [
            ("command", &(&settings.command, &settings.entry, &settings.cwd, &settings.node)),
            ("environment", &self.env),
            ("user", &(&settings.user, &settings.group, &self.identity)),
            ("state", &self.state_paths()),
            ("addresses", &(self.port, &settings.listen, settings.forwarded)),
            ("probe", &(paths, &settings.version, &settings.probe_headers, settings.probe_timeout)),
            ("plugins", &settings.plugins),
            ("preflight", &(&settings.preflight, &settings.validate, &settings.questions, &settings.repair)),
        ];
        Setup(parts.into_iter().map(|(name, part)| (name.to_owned(), digest(part))).collect())
    }

    /// What they say of the data.
    pub(super) fn declared(&self) -> Declared {
        Declared { class: self.settings.class(), release: self.settings.policy.release }
    }
}

fn digest(part: &dyn Debug) -> String {
    hex::encode(Sha256::digest(format!("{part:?}")))
}
