//! Looks at one live process, round after round: asks it, asks the system about it, and reads its log on.

use super::answers::{Failed, observe_service};
use super::assembly::assemble;
use super::process::{Before, observe_process};
use super::settings::{Address, ProbeSettings};
use super::tripwire::TripwireScanner;
use crate::supervisor::Live;
use cutover_core::{Exchanges, Observations, Seen};
use std::path::{Path, PathBuf};

/// What is to be looked at, and where.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What is asked.
    pub settings: ProbeSettings,
    /// Where the service itself listens.
    pub direct: Address,
    /// Where else it is asked (the front's probe lane).
    pub elsewhere: Option<Address>,
    /// The service's own port.
    pub port: u16,
    /// The process.
    pub live: Live,
    /// What ran before it.
    pub before: Option<Before>,
    /// Its log.
    pub log: PathBuf,
}

/// Looks at one process, and remembers what of its log it has read.
#[derive(Debug)]
pub struct Observer {
    sight: Sight,
    clock: fn() -> u64,
    tripwires: Option<TripwireScanner>,
    failed_elsewhere: Failed,
    /// Whether it was live and ready at its own address in the last round.
    direct: Option<(Seen<bool>, Seen<bool>)>,
}

impl Observer {
    /// An observer that reads the log from its beginning. `root` is the generation's resolved directory, `clock` tells Unix
    /// time in milliseconds.
    #[must_use]
    pub fn new(sight: Sight, root: &Path, clock: fn() -> u64) -> Self {
        let tripwires = Some(TripwireScanner::whole(sight.log.clone(), root));
        Self { sight, clock, tripwires, failed_elsewhere: Failed::default(), direct: None }
    }

    /// The process.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.sight.live
    }

    /// From now on it is also asked there, and nowhere else but at its own address.
    pub fn ask_at(&mut self, address: Address) {
        self.sight.elsewhere = Some(address);
    }

    /// Those exchanges of the last round that are seen by whoever counts clients' ones.
    #[must_use]
    pub fn asked_in_public(&self) -> Exchanges {
        let Failed { bad, abnormal } = self.failed_elsewhere;
        match self.sight.elsewhere {
            Some(Address::Tcp(_)) => Exchanges { answered: self.sight.settings.questions(), bad, abnormal },
            Some(Address::Unix { .. }) | None => Exchanges::default(),
        }
    }

    /// Whether it is asked at another address than its own.
    #[must_use]
    pub fn asks_elsewhere(&self) -> bool {
        self.sight.elsewhere.is_some()
    }

    /// One round. How clients fare is nothing that a look at a process can tell.
    pub async fn look(&mut self) -> Observations {
        self.round(self.sight.elsewhere.clone()).await
    }

    /// One round at its own address alone.
    pub async fn look_directly(&mut self) -> Observations {
        self.round(None).await
    }

    /// One round at its own address and at this one.
    pub async fn look_at(&mut self, address: Address) -> Observations {
        self.round(Some(address)).await
    }

    /// The last round with the liveness and readiness that it had at its own address.
    #[must_use]
    pub fn directly(&self, seen: Observations) -> Observations {
        let Some((live, ready)) = self.direct.clone() else { return seen };
        Observations { live, ready, ..seen }
    }

    async fn round(&mut self, elsewhere: Option<Address>) -> Observations {
        let clock = self.clock;
        let Sight { settings, direct, port, live, before, .. } = self.sight.clone();
        let answers = observe_service(&settings, &direct, &clock).await;
        self.direct = Some((answers.live.clone(), answers.ready.clone()));
        let mut others = Vec::new();
        if let Some(elsewhere) = &elsewhere {
            let said = observe_service(&settings, elsewhere, &clock).await;
            self.failed_elsewhere = said.failed;
            others.push(said);
        }
        let mut scanner = self.tripwires.take().expect("BUG: a round is looked at one at a time");
        let (facts, tripwires, scanner) = tokio::task::spawn_blocking(move || {
            let facts = observe_process(&live, Some(port), before.as_ref(), &clock);
            let tripwires = scanner.look(clock());
            (facts, tripwires, scanner)
        })
        .await
        .expect("BUG: looking at a process panicked");
        self.tripwires = Some(scanner);
        let traffic = Seen::NotApplicable { why: "not told by a look at the process".into() };
        assemble(facts, answers, others, tripwires, traffic, 1)
    }
}
