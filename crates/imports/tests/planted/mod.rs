//! Faults in a copy of a real tree, and what a plain reading of its text says must be found. The reading knows nothing
//! of a parser: chunks import one another by `"./name"`, on one line.

use cutover_imports::Finding;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file and a line.
pub(crate) type Place = (PathBuf, u32);

pub(crate) fn places(found: &[Finding]) -> BTreeSet<Place> {
    found.iter().map(|it| (it.file.clone(), it.line)).collect()
}

/// The places of names that are missed.
pub(crate) fn named_places(found: &[Finding]) -> BTreeSet<Place> {
    found.iter().filter(|it| it.name.is_some()).map(|it| (it.file.clone(), it.line)).collect()
}

/// A throw of dice that can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn thrown() -> Dice {
        let seed = std::env::var("CUTOVER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
        println!("CUTOVER_TEST_SEED={seed}");
        Dice(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        // Knuth's MMIX generator; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// An installation that shares its files with the one that it was copied from, until a file is planted.
pub(crate) struct Copy {
    directory: tempfile::TempDir,
}

/// What was planted: the file, and where its former self is kept if there was one.
pub(crate) struct Planted {
    path: PathBuf,
    kept: Option<PathBuf>,
}

impl Copy {
    pub(crate) fn of(project: &Path) -> Copy {
        // On the same file system, so that files can be shared.
        let directory = tempfile::tempdir_in(project.parent().unwrap()).unwrap();
        share(&project.join("node_modules"), &directory.path().join("node_modules"));
        Copy { directory }
    }

    /// Puts a package beside those that are there, and tells where.
    pub(crate) fn add(&self, package: &Path, name: &str) -> PathBuf {
        let target = self.directory.path().join("node_modules").join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        share(package, &target);
        target.canonicalize().unwrap()
    }

    pub(crate) fn core(&self) -> PathBuf {
        self.directory.path().join("node_modules/openclaw").canonicalize().unwrap()
    }

    pub(crate) fn remove(&self, path: &Path) -> Planted {
        let kept = path.with_extension("kept");
        fs::rename(path, &kept).unwrap();
        Planted { path: path.to_owned(), kept: Some(kept) }
    }

    pub(crate) fn replace(&self, path: &Path, change: impl FnOnce(&str) -> String) -> Planted {
        let text = fs::read_to_string(path).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "{} was to change", path.display());
        let planted = self.remove(path);
        fs::write(path, changed).unwrap();
        planted
    }

    pub(crate) fn put_back(&self, planted: Planted) {
        match planted.kept {
            Some(kept) => fs::rename(kept, planted.path).unwrap(),
            None => fs::remove_file(planted.path).unwrap(),
        }
    }

    /// Puts some of another version's files over those of this one, and takes some away that it has not.
    pub(crate) fn overlay(&self, other: &Path, dice: &mut Dice, percent: usize) -> Vec<Planted> {
        let (ours, theirs) = (self.core().join("dist"), other.join("dist"));
        let names: BTreeSet<_> = names(&ours).into_iter().chain(names(&theirs)).collect();
        let mut planted = Vec::new();
        for name in names {
            let (path, source) = (ours.join(&name), theirs.join(&name));
            if dice.below(100) >= percent {
                continue;
            }
            if path.exists() {
                planted.push(self.remove(&path));
            } else {
                planted.push(Planted { path: path.clone(), kept: None });
            }
            if source.exists() {
                fs::hard_link(source, path).unwrap();
            } else if planted.last().is_some_and(|it| it.kept.is_none()) {
                planted.pop();
            }
        }
        planted
    }
}

fn names(directory: &Path) -> Vec<String> {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| is_chunk(name)).collect()
}

fn is_chunk(name: &str) -> bool {
    name.ends_with(".js") || name.ends_with(".mjs")
}

fn share(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            share(&path, &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), target).unwrap();
        } else {
            fs::hard_link(&path, target).unwrap();
        }
    }
}

/// What the chunks of a bundle say of one another, read line by line.
pub(crate) struct Text {
    chunks: BTreeMap<String, Chunk>,
    /// Imports of chunks that are not there.
    lost: BTreeSet<Place>,
}

pub(crate) struct Chunk {
    pub(crate) path: PathBuf,
    pub(crate) importers: Vec<Importer>,
    pub(crate) exports: Vec<Export>,
}

pub(crate) struct Importer {
    pub(crate) file: PathBuf,
    pub(crate) line: u32,
    pub(crate) is_dynamic: bool,
    names: Vec<String>,
}

pub(crate) struct Export {
    pub(crate) local: String,
    pub(crate) exported: String,
    written: String,
}

impl Text {
    pub(crate) fn of(core: &Path) -> Text {
        let dist = core.join("dist");
        let names = names(&dist);
        let chunk = |name: &String| {
            let path = dist.join(name);
            let exports = exports(&fs::read_to_string(&path).unwrap());
            (name.clone(), Chunk { path, importers: Vec::new(), exports })
        };
        let mut text = Text { chunks: names.iter().map(chunk).collect(), lost: BTreeSet::new() };
        for name in &names {
            text.read(&dist.join(name));
        }
        text
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.values()
    }

    pub(crate) fn lost(&self) -> &BTreeSet<Place> {
        &self.lost
    }

    fn read(&mut self, file: &Path) {
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let line_number = u32::try_from(number).unwrap() + 1;
            for (before, is_dynamic) in [(" from \"./", false), ("import(\"./", true), ("import \"./", false)]
            {
                for (at, _) in line.match_indices(before) {
                    let is_statement = line.starts_with("import") || line.starts_with("export");
                    let is_comment =
                        line.trim_start().starts_with("//") || line.trim_start().starts_with('*');
                    let Some((name, _)) = line[at + before.len()..].split_once('"') else { continue };
                    if is_comment || (!is_dynamic && !is_statement) || !is_chunk(name) || name.contains('/') {
                        continue;
                    }
                    let names = if is_dynamic { Vec::new() } else { taken(&line[..at]) };
                    let importer = Importer { file: file.to_owned(), line: line_number, is_dynamic, names };
                    match self.chunks.get_mut(name) {
                        Some(chunk) => chunk.importers.push(importer),
                        None => drop(self.lost.insert((file.to_owned(), line_number))),
                    }
                }
            }
        }
    }
}

impl Chunk {
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    /// Where it is imported.
    pub(crate) fn places(&self) -> BTreeSet<Place> {
        self.importers.iter().map(|it| (it.file.clone(), it.line)).collect()
    }

    /// Where one of its names is imported by a statement.
    pub(crate) fn named_places(&self, name: &str) -> BTreeSet<Place> {
        let importers = self.importers.iter().filter(|it| it.names.iter().any(|it| it == name));
        importers.map(|it| (it.file.clone(), it.line)).collect()
    }

    /// Whether a finding is of this file though it does not spell its name.
    pub(crate) fn is_named_by(&self, finding: &Finding) -> bool {
        finding.specifier.ends_with(self.name())
    }
}

impl Export {
    pub(crate) fn renamed_in(&self, text: &str) -> String {
        let at = text.rfind("\nexport { ").unwrap();
        let (head, tail) = text.split_at(at);
        let renamed = format!("{} as renamed_{}", self.local, self.exported);
        let list: Vec<String> = list(tail)
            .iter()
            .map(|it| if *it == self.written { renamed.clone() } else { it.clone() })
            .collect();
        let (_, rest) = tail.split_once('}').unwrap();
        format!("{head}\nexport {{ {} }}{rest}", list.join(", "))
    }
}

fn list(text: &str) -> Vec<String> {
    let inside =
        text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
    inside.split(", ").map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

fn exports(text: &str) -> Vec<Export> {
    let Some(at) = text.rfind("\nexport { ") else { return Vec::new() };
    if text[at..].contains("} from ") {
        return Vec::new();
    }
    let export = |written: String| {
        let (local, exported) = written.split_once(" as ").unwrap_or((&written, &written));
        Export { local: local.to_owned(), exported: exported.to_owned(), written: written.clone() }
    };
    list(&text[at..]).into_iter().map(export).collect()
}

/// The names on the left of `from`.
fn taken(statement: &str) -> Vec<String> {
    list(statement).iter().map(|it| it.split(" as ").next().unwrap().to_owned()).collect()
}
