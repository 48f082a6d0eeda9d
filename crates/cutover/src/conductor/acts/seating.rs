//! Plugins' seats: before anything of a generation looks at the state, the plugins of that generation sit in it.
//!
//! Must not know what a service does with a seat.

use super::{Executor, blocking, chain, warn};
use crate::store::plugin_directory;
use crate::store::snapshot::{self, Error, Seat, Seating, Sight};
use cutover_core::{Fault, Finding, Installed, Level};
use std::path::{Path, PathBuf};

const KIND: &str = "plugins";

impl Executor {
    /// Who is to have which seat when a generation runs; nobody has those that the settings do not name any more.
    pub(super) fn seating(&self, installed: &Installed) -> Result<Seating, Fault> {
        let Installed { generation, release } = installed;
        let root = self.site.store.root(*generation).map_err(chain("store"))?;
        let mut seating = self.vacated()?;
        for seat in self.named_seats() {
            seating.seats.retain(|(known, _)| *known != seat);
            let is_there = release.plugins.iter().any(|plugin| plugin.package == seat.package);
            let plugin = is_there.then(|| plugin_directory(&root, &release.package, &seat.package));
            seating.seats.push((seat, plugin));
        }
        Ok(seating)
    }

    /// Seats that may hold a link, and those of the settings: what lies in them is given anew before each start.
    pub(super) fn seats_known(&self) -> Result<Vec<Seat>, Fault> {
        let noted = snapshot::seats(&self.site.directory()).map_err(chain(KIND))?;
        Ok(noted.into_iter().chain(self.named_seats()).collect())
    }

    /// Nobody of ours has a seat.
    fn vacated(&self) -> Result<Seating, Fault> {
        let seats = snapshot::seats(&self.site.directory()).map_err(chain(KIND))?;
        let generations = self.site.store.generations_dir();
        Ok(Seating {
            seats: seats.into_iter().map(|seat| (seat, None)).collect(),
            // There are none before the first is staged, and then no links either.
            generations: generations.canonicalize().unwrap_or(generations),
        })
    }

    /// Leads every seat in live state to what a generation has for it. Must be called only while nothing runs.
    pub(super) async fn seat(&self, installed: &Installed) -> Result<(), Fault> {
        self.give(self.seating(installed)?).await
    }

    /// The same before a start that is not given up for it: the proof tells whether the plugins are there.
    pub(super) async fn seat_if_possible(&self, installed: &Installed) {
        if let Err(fault) = self.seat(installed).await {
            warn(self, "a plugin could not be given its seat", &fault);
        }
    }

    /// Gives every seat back to whom it was before, for whoever served before; not given up for a seat that cannot be. Must be
    /// called only while nothing runs: what runs again on the same state keeps what it runs with.
    pub(in super::super) async fn vacate_seats(&self) {
        let vacated = match self.is_revived() {
            Ok(true) => Ok(()),
            Ok(false) => match self.vacated() {
                Ok(seating) => self.give(seating).await,
                Err(fault) => Err(fault),
            },
            Err(fault) => Err(fault),
        };
        if let Err(fault) = vacated {
            warn(self, "a plugin's seat could not be vacated", &fault);
        }
    }

    async fn give(&self, seating: Seating) -> Result<(), Fault> {
        if seating.seats.is_empty() {
            return Ok(());
        }
        let (paths, service) = (self.site.state_paths(), self.site.directory());
        self.with_hands(KIND, move || {
            let all = seating.seats.iter();
            let taken: Vec<Seat> =
                all.clone().filter(|(_, plugin)| plugin.is_some()).map(|(seat, _)| seat.clone()).collect();
            let all: Vec<Seat> = all.map(|(seat, _)| seat.clone()).collect();
            let known = snapshot::seats(&service)?;
            if !all.iter().all(|seat| known.contains(seat)) {
                snapshot::note_seats(&service, &all)?;
            }
            seating.give(&snapshot::at_home(&paths)?)?;
            // One that is vacated is nobody's of ours any more.
            if taken != snapshot::seats(&service)? {
                snapshot::note_seats(&service, &taken)?;
            }
            Ok::<_, Error>(())
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
            let look = |(seat, plugin): (Seat, Option<PathBuf>)| {
                let sight = plugin.map(|_| seat.look(&roots, &generations)).transpose()?;
                Ok((seat, sight))
            };
            seats.into_iter().map(look).collect::<Result<Vec<_>, Error>>()
        });
        Ok(seen.await?.into_iter().map(|(seat, sight)| foreseen(&seat, sight)).collect())
    }

    /// The seats of the settings, by the real names of their places.
    fn named_seats(&self) -> impl Iterator<Item = Seat> {
        self.site.settings.plugins.iter().filter_map(|plugin| {
            Some(Seat { project: real(plugin.project.as_deref()?), package: plugin.package.clone() })
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

/// The real name of what is there of a path, with the rest as it is.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        Some((above, real)) => real.join(path.strip_prefix(above).expect("it is one of its ancestors")),
        None => path.to_owned(),
    }
}
