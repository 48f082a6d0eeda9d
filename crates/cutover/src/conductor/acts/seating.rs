//! Plugins' seats: before anything of a generation looks at the state, the plugins of that generation sit in it.
//!
//! Must not know what a service does with a seat.

use super::{Executor, blocking, chain};
use crate::store::plugin_directory;
use crate::store::snapshot::{self, Error, Seat, Seating};
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

    /// Gives every seat back to whom it was before. Must be called only while nothing runs.
    pub(in super::super) async fn vacate_seats(&self) -> Result<(), Fault> {
        self.give(self.vacated()?).await
    }

    async fn give(&self, seating: Seating) -> Result<(), Fault> {
        if seating.seats.is_empty() {
            return Ok(());
        }
        let (paths, service) = (self.site.state_paths(), self.site.directory());
        self.with_hands(KIND, move || {
            let seats: Vec<Seat> = seating.seats.iter().map(|(seat, _)| seat.clone()).collect();
            if snapshot::seats(&service)? != seats {
                snapshot::note_seats(&service, &seats)?;
            }
            seating.give(&snapshot::at_home(&paths)?)
        })
        .await
    }

    /// What a start would do to seats, in a plan's words.
    pub(super) async fn seats_foreseen(&self, target: &Installed) -> Result<Vec<Finding>, Fault> {
        let Seating { seats, generations } = self.seating(target)?;
        if seats.is_empty() {
            return Ok(Vec::new());
        }
        let paths = self.site.state_paths();
        let strange = blocking(KIND, move || {
            let roots = snapshot::at_home(&paths)?;
            let mut found = Vec::new();
            for (seat, plugin) in seats {
                let stranger = if plugin.is_some() { seat.stranger(&roots, &generations)? } else { None };
                found.push((seat, plugin, stranger));
            }
            Ok::<_, Error>(found)
        });
        let told = |(seat, plugin, stranger): (Seat, Option<PathBuf>, Option<PathBuf>)| {
            let (package, link) = (&seat.package, seat.link());
            let text = match stranger {
                None => format!(
                    "{package} sits at {}: a link leads to it from before the start on",
                    link.display()
                ),
                Some(_) => format!(
                    "{package} is to sit at {}, where something else lies: that is put aside beside it, and comes back with a \
                     version that goes without the plugin",
                    link.display()
                ),
            };
            plugin.map(|_| Finding::new(Level::Note, KIND, text))
        };
        Ok(strange.await?.into_iter().filter_map(told).collect())
    }

    /// The seats of the settings, by the real names of their places.
    fn named_seats(&self) -> impl Iterator<Item = Seat> {
        self.site.settings.plugins.iter().filter_map(|plugin| {
            Some(Seat { project: real(plugin.project.as_deref()?), package: plugin.package.clone() })
        })
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
