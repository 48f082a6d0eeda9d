//! Which instance is younger. Wall time may be set back, so what counts is the boot in which an instance came to life and
//! its start on the clock of that boot, both as they stand in its own record.

use crate::supervisor;
use cutover_core::{BootId, Instance};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The directories below `instances`, youngest first. Between earlier boots, whose order nothing else tells, and within one
/// tick of the clock the marks decide, which are made from wall time. Where nothing ever ran comes last.
pub(crate) fn youngest_first(instances: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(instances);
    let found = entries.map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    sorted(found.unwrap_or_default(), cutover_intent::identity::boot_id().ok().as_ref())
}

fn sorted(directories: Vec<PathBuf>, now: Option<&BootId>) -> Vec<PathBuf> {
    let mut found: Vec<(Option<Instance>, PathBuf)> =
        directories.into_iter().map(|directory| (born(&directory), directory)).collect();
    let mut last_marks: BTreeMap<BootId, PathBuf> = BTreeMap::new();
    for (born, directory) in &found {
        let Some(born) = born else { continue };
        let last = last_marks.entry(born.boot_id.clone()).or_default();
        *last = directory.clone().max(std::mem::take(last));
    }
    found.sort_by_cached_key(|(born, directory)| {
        let place = born.as_ref().map(|born| {
            (Some(&born.boot_id) == now, last_marks.get(&born.boot_id).cloned(), born.start_time)
        });
        std::cmp::Reverse((place, directory.clone()))
    });
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// Who came to life here: the service's process, or the keeper of one that is not executed yet. A record that cannot be
/// read says nothing of its age; whoever needs it says what is wrong with it.
fn born(directory: &Path) -> Option<Instance> {
    let executed = supervisor::executed(directory).ok().flatten().map(|record| record.instance);
    executed.or_else(|| supervisor::kept(directory).ok().flatten().map(|record| record.keeper))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ground(tempfile::TempDir);

    impl Ground {
        fn directory(&self, mark: &str) -> PathBuf {
            let path = self.0.path().join(mark);
            std::fs::create_dir(&path).unwrap();
            path
        }

        /// A keeper's record, as the supervisor reads it.
        fn kept(&self, mark: &str, boot: &str, start_time: u64) {
            let keeper = Instance { pid: 7, start_time, boot_id: BootId(boot.into()) };
            let text = serde_json::to_vec(&supervisor::KeeperRecord { keeper }).unwrap();
            std::fs::write(self.directory(mark).join("keeper.json"), text).unwrap();
        }

        fn order(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.path()).unwrap();
            let sorted =
                sorted(entries.map(|entry| entry.unwrap().path()).collect(), Some(&BootId("now".into())));
            sorted.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        }
    }

    #[test]
    fn an_instance_stays_the_youngest_though_the_clock_was_set_back() {
        let ground = Ground(tempfile::tempdir().unwrap());
        ground.kept("5-before-the-step", "now", 1000);
        ground.kept("1-after-the-step", "now", 2000);
        ground.kept("2-later-still", "now", 3000);
        ground.directory("9-never-kept");
        assert_eq!(
            ground.order(),
            ["2-later-still", "1-after-the-step", "5-before-the-step", "9-never-kept"]
        );
    }

    #[test]
    fn this_boot_is_younger_than_any_other_and_earlier_ones_stay_together() {
        let ground = Ground(tempfile::tempdir().unwrap());
        ground.kept("8-old", "first", 9000);
        ground.kept("3-old", "first", 9500);
        ground.kept("9-older", "second", 100);
        ground.kept("4-older", "second", 200);
        ground.kept("1-here", "now", 50);
        assert_eq!(ground.order(), ["1-here", "4-older", "9-older", "3-old", "8-old"]);
    }
}
