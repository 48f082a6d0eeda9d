//! The signals a gateway knows, and which of them end it.

use crate::life::Service;
use crate::restart::{self, Answer};
use crate::voice;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// SIGTERM or SIGINT.
    Stop,
    /// A SIGUSR1 that was granted.
    Restart,
}

/// Open signal streams: from their making on, none of these signals has its default effect.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    usr1: Signal,
    usr2: Signal,
    hangup: Signal,
    intent_file: Option<PathBuf>,
}

impl Signals {
    pub(super) fn listen(intent_file: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            hangup: signal(SignalKind::hangup())?,
            intent_file,
        })
    }

    /// Answers signals until one of them ends the process.
    pub(super) async fn ending(&mut self, service: &Service) -> Ending {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    if let Some(ending) = stop("SIGTERM", service) { return ending; }
                }
                _ = self.interrupt.recv() => {
                    if let Some(ending) = stop("SIGINT", service) { return ending; }
                }
                _ = self.usr1.recv() => {
                    service.signals[0].fetch_add(1, Ordering::Relaxed);
                    match restart::answer(&service.knobs, self.intent_file.as_deref()) {
                        Answer::Restart => return Ending::Restart,
                        Answer::GoOn => {}
                    }
                }
                _ = self.usr2.recv() => record("SIGUSR2", service, 1),
                _ = self.hangup.recv() => record("SIGHUP", service, 2),
            }
        }
    }
}

fn stop(name: &str, service: &Service) -> Option<Ending> {
    if service.knobs.ignore_term {
        voice::say(format!("{name} ignored"));
        return None;
    }
    Some(Ending::Stop)
}

/// Signals that mean nothing here are counted, so that a test can tell that none was sent.
fn record(name: &str, service: &Service, counter: usize) {
    service.signals[counter].fetch_add(1, Ordering::Relaxed);
    voice::say(format!("{name} recorded"));
}
