//! The host: whether this machine lets the update happen.
//!
//! Knows which look comes when. Must not know what any of them looks at.

use super::memory::{self, Rehearsal};
use super::rival::{self, Service};
use super::space::{self, Use};
use super::version::{self, Told};
use super::{access, group, port};
use crate::store::Identity;
use cutover_core::{Finding, Instance};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that is looked at on the machine. What a service has not is left empty and has no findings.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Every place that the update writes to, with what it needs there.
    pub uses: Vec<Use>,
    /// Whom the service runs as, if not the caller.
    pub identity: Option<Identity>,
    /// Paths that the service itself must be able to write: its state, its TMPDIR, its logs.
    pub writable: Vec<PathBuf>,
    /// Declared state, in which nothing may belong to others only.
    pub state: Vec<PathBuf>,
    /// Where the service itself listens.
    pub address: Option<SocketAddr>,
    /// Every process of ours: instances, their keepers, what they started, and the front.
    pub ours: Vec<Instance>,
    /// Every process of the other services that the same daemon runs: no rivals, whatever they are of.
    pub siblings: Vec<Instance>,
    /// How the service is known, to find who else supervises it.
    pub service: Option<Service>,
    /// Set where a second process is to run beside the first.
    pub rehearsal: Option<Rehearsal>,
    /// What the running service said when it was asked for its version; `None` unless it runs and has proven itself.
    pub version: Option<Told>,
}

/// Looks whether this machine has what the update needs. Nothing is created, stopped or changed.
#[must_use]
pub fn host(host: &Host) -> Vec<Finding> {
    let mut findings = space::look(&host.uses);
    findings.extend(access::look(&host.writable, host.identity.as_ref()));
    findings.extend(group::look(&host.state, host.identity.as_ref()));
    findings.extend(host.address.into_iter().flat_map(|address| port::look(address, &host.ours)));
    let known: Vec<Instance> = host.ours.iter().chain(&host.siblings).cloned().collect();
    findings.extend(host.service.iter().flat_map(|service| rival::look(service, &known)));
    findings.extend(host.rehearsal.iter().flat_map(memory::look));
    findings.extend(host.version.iter().map(version::look));
    findings
}
