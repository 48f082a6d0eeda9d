//! Where a service stands. What the world is told and what is done to it are readings of this value.

use crate::act;
use crate::{
    Act, Cause, DataOrder, Ending, Gate, Generation, Installed, Instance, Intake, Kind, Release, ReleaseRule,
    RunId, Settings, Setup, Ticket, Wanted, Writes,
};
use serde::{Deserialize, Serialize};

/// The state of one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Where it stands; the variant's name is its failure rule.
    pub phase: Phase,
    /// The operator's durable wish.
    pub wish: Wish,
    /// What the pointer durably names.
    pub current: Option<Installed>,
    /// Which live process may be served.
    pub serving: Serving,
    /// The generation before the current one, kept until watch and retention end.
    pub previous: Option<Kept>,
    /// A run that was switched while the service was kept stopped, waiting for `start`.
    pub parked: Option<Cut>,
    /// Whether the current tree still is what was sealed.
    pub tree: Tree,
    /// A live process that an operator's `restart` wants gone.
    pub leaving: Option<Instance>,
    /// Whether automatic restarts go on.
    pub restarts: Restarts,
    /// How the last run ended.
    pub last: Option<Ending>,
    /// Releases that were reverted: a channel does not install them again by itself.
    pub skipped: Vec<Release>,
}

/// The operator's durable wish for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// It shall run.
    Run,
    /// It shall not, also across reboots.
    Stopped,
}

/// Which live process the front may serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// None has proven itself.
    Unproven,
    /// This one has.
    Proven(Instance),
    /// A person waived the missing facts of this generation; `None`: its process is gone, and the next is to come.
    Waived(Option<Instance>),
}

/// Whether the current tree is what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// It is.
    Sealed,
    /// A foreign hand changed it.
    Damaged,
}

/// Whether the process of a resting service is started again after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restarts {
    /// Yes, with capped back-off.
    Allowed,
    /// No: it ended with an exit code that its settings name as one after which starting again cannot help. An order
    /// to start it, in whatever way, allows it again.
    Halted {
        /// That code.
        code: i32,
    },
}

/// Where a service stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
pub enum Phase {
    /// No run. A fault is answered by a restart.
    Idle,
    /// A run before the cut. A fault is answered by its base, nothing changed.
    Preparing(Preparation),
    /// A run past the cut. A fault is answered by `RollingBack`, or `Maintenance` where data forbids it.
    CuttingOver(Cut),
    /// Going back. A fault is answered by `Maintenance`.
    RollingBack(Retreat),
    /// Committed and observed. A failing target is answered by an automatic revert.
    Watching(Watch),
    /// Declared maintenance: a person decides.
    Maintenance(Maintenance),
}

/// A run before the cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preparation {
    /// The run.
    pub run: Run,
    /// The act under way.
    pub act: Act,
    /// What it aims at, as far as it is settled.
    pub aim: Aim,
    /// Where a fault leads back to.
    pub base: Base,
    /// What it waits for before anything stops.
    #[serde(default)]
    pub gate: Gate,
}

impl Preparation {
    /// The ticket of the act under way.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { run: self.run.id.clone(), act: self.act, round: self.gate.round }
    }
}

/// What every run carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// What started it.
    pub kind: Kind,
    /// What served before; `None` on the first installation.
    pub source: Option<Installed>,
    /// What becomes of the data.
    pub data: DataOrder,
    /// The run under whose name this chain's snapshot lies: its own, or that of the run which maintenance is about.
    pub snapshot: RunId,
    /// Rules, frozen.
    pub settings: Settings,
}

/// What a preparation aims at, settled step by step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// What was asked for.
    Wanted(Wanted),
    /// The exact release.
    Resolved(Release),
    /// The sealed generation.
    Staged(Installed),
}

/// The resting phase that a run began in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// Idle.
    Idle,
    /// Watching; its watch goes on until the run's own Stop.
    Watching(Watch),
    /// Maintenance, as a whole value.
    Maintenance(Maintenance),
}

/// How far something was begun. "Begun" is durable before the world changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Its act was never entered.
    Never,
    /// Entered (for Start: a keeper is journaled).
    Begun,
    /// Done.
    Finished,
}

/// Whether the front was told to let traffic through to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Held.
    Held,
    /// Let through.
    Released,
}

/// A run past the cut: everything that going on and going back need.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// The run.
    pub run: Run,
    /// What it installs.
    pub target: Installed,
    /// The act under way.
    pub act: Act,
    /// The resting phase that it began in.
    pub base: Base,
    /// Attempts, the first included.
    pub attempts: u8,
    /// Interruptions that were not the run's doing (same boot, same instance).
    pub interruptions: u8,
    /// Re-entries of acts; part of the ticket.
    pub round: u8,
    /// Switch.
    pub switch: Extent,
    /// Place.
    pub place: Extent,
    /// Start of the target.
    pub start: Extent,
    /// The target's live process.
    pub live: Option<Instance>,
    /// Whether clients' requests reach the target.
    pub traffic: Traffic,
    /// Writes given up so far.
    pub writes: Writes,
    /// The source's tree.
    pub source_tree: Tree,
    /// What the settings said that decides what is started, as a person approved it; not known where nobody had to.
    #[serde(default)]
    pub approved: Setup,
}

impl Cut {
    /// The acts of this run, in order.
    #[must_use]
    pub fn order(&self) -> Vec<Act> {
        act::cutting_over(&self.run.settings, &self.run.data)
    }

    /// The ticket of the act under way.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { run: self.run.id.clone(), act: self.act, round: self.round }
    }

    /// Whether the outside world may have written through the target.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.traffic == Traffic::Released
            || (self.run.settings.intake != Intake::Front && self.start > Extent::Never)
    }

    /// Whether traffic is let through before the soak.
    #[must_use]
    pub fn is_released_before_soak(&self) -> bool {
        self.run.settings.policy.release == ReleaseRule::AfterProve
    }
}

/// Going back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retreat {
    /// The run as it stood when it turned round; its `act`, `attempts` and `round` now count the way back.
    pub cut: Cut,
    /// Faults so far.
    pub causes: Vec<Cause>,
    /// Whether the act under way is a second try.
    pub retried: Retried,
    /// The old instance that outlived the run and was asked to end went, and was started again (once).
    pub revived: Revived,
    /// Whether a person gave up what was written since.
    #[serde(default)]
    pub leave: Leave,
}

/// Whether a person ordered the way back, without the writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leave {
    /// Nobody did: the rules of the run say what becomes of them.
    #[default]
    AsRuled,
    /// `recover --rollback`.
    Given,
}

/// Whether an act of going back was tried before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retried {
    /// First try.
    No,
    /// Second and last try.
    Once,
}

/// Whether the old instance had to be started again on the way back although the target never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revived {
    /// It lives on, or the target had been started.
    No,
    /// It went and was started again.
    Once,
}

/// The generation before the current one and what going back to it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// What it is.
    pub installed: Installed,
    /// The run whose snapshot holds its data.
    pub snapshot: RunId,
    /// The rules of that run.
    pub settings: Settings,
}

/// A committed run under observation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// The committed run.
    pub run: RunId,
    /// Its rules.
    pub settings: Settings,
}

/// Declared maintenance: everything that `recover` talks about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// The run that led here.
    pub run: Run,
    /// What it meant to install.
    pub target: Installed,
    /// The generation whose code and data are known to fit together.
    pub coherent: Option<Generation>,
    /// The resting state's data order was carried out as far as this.
    pub place: Extent,
    /// How far the target's start was carried: whether it can have touched the data.
    pub start: Extent,
    /// Writes given up by the run that led here.
    pub writes: Writes,
    /// The tree of what was coherent: once it is found changed, nothing is, though pointer and data are where they were.
    #[serde(default = "Tree::sealed", skip_serializing_if = "Tree::is_sealed")]
    pub coherent_tree: Tree,
    /// Faults, first to last.
    pub causes: Vec<Cause>,
}

impl Maintenance {
    /// A generation's tree is damaged: if it was coherent, nothing is any more.
    pub(crate) fn doubt(&mut self, generation: Generation) {
        if self.coherent == Some(generation) {
            self.coherent = None;
            self.coherent_tree = Tree::Damaged;
        }
    }
}

impl Tree {
    fn sealed() -> Self {
        Self::Sealed
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as it is called by what writes it")]
    fn is_sealed(&self) -> bool {
        *self == Self::Sealed
    }
}

impl State {
    /// A service that has never been installed and shall run.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Idle,
            wish: Wish::Run,
            current: None,
            serving: Serving::Unproven,
            previous: None,
            parked: None,
            tree: Tree::Sealed,
            leaving: None,
            restarts: Restarts::Allowed,
            last: None,
            skipped: Vec::new(),
        }
    }

    /// The generation that the pointer names.
    #[must_use]
    pub fn current_generation(&self) -> Option<Generation> {
        self.current.as_ref().map(|installed| installed.generation)
    }

    /// The id of the run under way, a parked one included.
    #[must_use]
    pub fn open_run(&self) -> Option<&RunId> {
        match &self.phase {
            Phase::Preparing(preparation) => Some(&preparation.run.id),
            Phase::CuttingOver(cut) => Some(&cut.run.id),
            Phase::RollingBack(retreat) => Some(&retreat.cut.run.id),
            Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => {
                self.parked.as_ref().map(|cut| &cut.run.id)
            }
        }
    }

    /// Every generation that something still needs: never pruned.
    #[must_use]
    pub fn needed(&self) -> Vec<Generation> {
        let mut needed: Vec<Generation> = self.current_generation().into_iter().collect();
        needed.extend(self.previous.as_ref().map(|kept| kept.installed.generation));
        let mut run = |run: &Run, target: Option<&Installed>| {
            needed.extend(run.source.as_ref().map(|source| source.generation));
            needed.extend(target.map(|target| target.generation));
        };
        if let Some(cut) = &self.parked {
            run(&cut.run, Some(&cut.target));
        }
        match &self.phase {
            Phase::Idle | Phase::Watching(_) => {}
            Phase::Preparing(preparation) => {
                let target = match &preparation.aim {
                    Aim::Staged(installed) => Some(installed),
                    Aim::Wanted(_) | Aim::Resolved(_) => None,
                };
                run(&preparation.run, target);
                if let Base::Maintenance(maintenance) = &preparation.base {
                    run(&maintenance.run, Some(&maintenance.target));
                }
            }
            Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => {
                run(&cut.run, Some(&cut.target));
                if let Base::Maintenance(maintenance) = &cut.base {
                    run(&maintenance.run, Some(&maintenance.target));
                }
            }
            Phase::Maintenance(maintenance) => run(&maintenance.run, Some(&maintenance.target)),
        }
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
