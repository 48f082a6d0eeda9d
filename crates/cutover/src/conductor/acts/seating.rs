//! Plugins' seats: before anything of a generation looks at the state, the plugins of that generation sit in it.
//!
//! Must not know what a service does with a seat.

use super::{Executor, blocking, chain, fault, warn};
use crate::config::{PluginPolicy, PluginSettings};
use crate::predecessor::Record;
use crate::resolved::real;
use crate::store::plugin_directory;
use crate::store::snapshot::{self, Error, Seat, Seating, Sight};
use cutover_core::{Fault, Finding, Installed, Level};
use std::path::PathBuf;

const KIND: &str = "plugins";

impl Executor {
    /// Who is to have which seat when a generation runs; nobody has those that the settings do not name any more.
    pub(super) fn seating(&self, installed: &Installed) -> Result<Seating, Fault> {
        let mut seating = self.vacated();
        for (plugin, seat) in self.named_seats() {
            seating.seats.retain(|(known, _)| *known != seat);
            seating.seats.push((seat, self.directory_of(plugin, installed)?));
        }
        Ok(seating)
    }

    /// The seats of the plugins that must be told when a generation runs, and where each must lead.
    pub(super) fn seats_of_proof(&self, installed: &Installed) -> Result<Vec<(Seat, PathBuf)>, Fault> {
        let mut seats = Vec::new();
        for (plugin, seat) in self.named_seats().filter(|(plugin, _)| plugin.policy != PluginPolicy::Wanted) {
            seats.extend(self.directory_of(plugin, installed)?.map(|directory| (seat, directory)));
        }
        Ok(seats)
    }

    /// Where a generation has a plugin; `None` if it goes without.
    fn directory_of(&self, plugin: &PluginSettings, installed: &Installed) -> Result<Option<PathBuf>, Fault> {
        let Installed { generation, release } = installed;
        if !release.plugins.iter().any(|one| one.package == plugin.package) {
            return Ok(None);
        }
        let root = self.site.store.root(*generation).map_err(chain("store"))?;
        Ok(Some(plugin_directory(&root, &release.package, &plugin.package)))
    }

    /// Seats that may hold a link, and those of the settings: what lies in them is given anew before each start.
    pub(super) fn seats_known(&self) -> Vec<Seat> {
        self.noted().into_iter().chain(self.named_seats().map(|(_, seat)| seat)).collect()
    }

    /// Seats that may hold a link. A record of links that cannot be read keeps nobody from serving.
    fn noted(&self) -> Vec<Seat> {
        snapshot::seats(&self.site.directory()).unwrap_or_else(|error| {
            warn(self, "which seats were given is not known", &chain(KIND)(error));
            Vec::new()
        })
    }

    /// Nobody of ours has a seat.
    fn vacated(&self) -> Seating {
        Seating {
            seats: self.noted().into_iter().map(|seat| (seat, None)).collect(),
            generations: self.site.store.real_generations_dir(),
        }
    }

    /// Leads every seat in live state to what a generation has for it. Must be called only while nothing runs. Nothing is given
    /// up for a seat that cannot be given: what sits there is a part of the proof.
    pub(super) async fn seat(&self, installed: &Installed) {
        let given = match self.seating(installed) {
            Ok(seating) => self.give(seating).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = given {
            warn(self, "a plugin could not be given its seat", &fault);
        }
    }

    /// Gives every seat back to whom it was before, for whoever serves next without us; not given up for one that cannot be.
    /// What runs on the same state already keeps what it runs with.
    pub(in super::super) async fn vacate_seats(&self) {
        let vacated = match self.is_in_use_by_another() {
            Ok(false) => self.give(self.vacated()).await,
            Ok(true) => {
                Err(fault(KIND, "the service that was here before runs on this state: its seats are left"))
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = vacated {
            warn(self, "a plugin's seat could not be vacated", &fault);
        }
    }

    fn is_in_use_by_another(&self) -> Result<bool, Fault> {
        let Some(record) = Record::read(&self.site.directory()).map_err(chain(KIND))? else {
            return Ok(false);
        };
        Ok(record.rival().map_err(chain(KIND))?.is_some())
    }

    async fn give(&self, seating: Seating) -> Result<(), Fault> {
        if seating.seats.is_empty() {
            return Ok(());
        }
        let (paths, service) = (self.site.state_paths(), self.site.directory());
        self.with_hands(KIND, move || {
            // For ever: an older snapshot may bring a link back.
            let seats: Vec<Seat> = seating.seats.iter().map(|(seat, _)| seat.clone()).collect();
            let known = snapshot::seats(&service).unwrap_or_default();
            if !seats.iter().all(|seat| known.contains(seat)) {
                snapshot::note_seats(&service, &seats)?;
            }
            seating.give(&snapshot::at_home(&paths)?)
        })
        .await
    }

    /// What a start would do to seats, in a plan's words, and what keeps a plugin from its seat.
    pub(super) async fn seats_foreseen(&self, target: &Installed) -> Result<Vec<Finding>, Fault> {
        let Seating { seats, generations } = self.seating(target)?;
        if seats.is_empty() {
            return Ok(Vec::new());
        }
        let paths = self.site.state_paths();
        let seen = blocking(KIND, move || {
            let roots = snapshot::at_home(&paths)?;
            let mut seen = Vec::new();
            for (seat, plugin) in seats {
                match plugin {
                    Some(_) => seen.push((seat.look(&roots, &generations).map(Some)?, seat)),
                    None if seat.is_given(&generations) => seen.push((None, seat)),
                    None => {}
                }
            }
            Ok::<_, Error>(seen)
        });
        Ok(seen.await?.into_iter().map(|(sight, seat)| foreseen(&seat, sight)).collect())
    }

    /// The plugins of the settings that have seats, with these by the real names of their places.
    fn named_seats(&self) -> impl Iterator<Item = (&PluginSettings, Seat)> {
        self.site.settings.plugins.iter().filter_map(|plugin| {
            let project = real(plugin.project.as_deref()?);
            Some((plugin, Seat { project, package: plugin.package.clone() }))
        })
    }
}

/// A seat in words. Without a sight nobody of ours is to have it.
fn foreseen(seat: &Seat, sight: Option<Sight>) -> Finding {
    let (package, link) = (&seat.package, seat.link());
    let link = link.display();
    let note = |text| Finding::new(Level::Note, KIND, text);
    let block = |text, advice| Finding::new(Level::Block, KIND, text).advised(advice);
    match sight {
        None => note(format!("nobody sits at {link} with this version; what lay there before comes back")),
        Some(Sight::Free) => note(format!("{package} sits at {link}: a link is led to it before each start")),
        Some(Sight::Stranger) => note(format!(
            "{package} is to sit at {link}, where something else lies: that is put aside beside it, and comes back with a \
             version that goes without the plugin"
        )),
        Some(Sight::Blocked(path)) => block(
            format!("{package} cannot sit at {link}: {} is no directory", path.display()),
            "move it away, or name another `project`",
        ),
        Some(Sight::Unnamed(manifest)) => block(
            format!(
                "{package} cannot sit at {link}: {} does not name it as a dependency",
                manifest.display()
            ),
            "name a project of the plugin's own",
        ),
        Some(Sight::Doubled(other)) => block(
            format!(
                "{package} is to sit at {link}, and lies at {} too: the service may take that one",
                other.display()
            ),
            "name its project instead, or remove it there",
        ),
    }
}
