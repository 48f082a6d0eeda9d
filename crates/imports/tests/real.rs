//! The real gateway's packages: faults that are planted are found, one and all, and nothing else is complained of.
#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

mod planted;

use cutover_imports::{
    Alias, Builtins, Cache, Checked, Finding, Interpreter, Kind, Limits, Reach, Weight, regressions,
};
use cutover_imports::{Root, Scope, Trees, check};
use cutover_testkit::openclaw::{NEW, OLD, Runtime};
use cutover_testkit::slow;
use planted::{Copy, Dice, Text};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

const INSTALL: Duration = Duration::from_secs(600);

/// How many chunks are removed, and how many exports renamed, in turn.
fn plants() -> usize {
    let is_thorough = std::env::var(slow::VARIABLE).is_ok_and(|sets| sets.contains("faults"));
    if is_thorough { 200 } else { 20 }
}

/// The symbol of the incident: the new version exports it, the old one does not.
const SYMBOL: &str = "formatChannelProgressDraftLineForEntry";

/// One test at a time: they install into the same cache and use the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

fn cache() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci");
    std::env::var_os("CUTOVER_TEST_CACHE").map_or_else(default, PathBuf::from)
}

/// Where a version's package lies; it is installed if it is not there.
fn installed(version: &str) -> PathBuf {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Runtime::kept_in(&cache(), INSTALL).await.unwrap();
        node.gateway(version, &cache().join("openclaw").join(version), INSTALL).await.unwrap()
    })
}

fn trees(core: &Path, plugins: &[&Path]) -> Trees {
    let root =
        |directory: &Path| Root { directory: directory.to_owned(), entries: Vec::new(), scope: Scope::Whole };
    Trees {
        roots: std::iter::once(core).chain(plugins.iter().copied()).map(root).collect(),
        aliases: vec![Alias { package: "openclaw".to_owned(), directory: core.to_owned() }],
        interpreter: Interpreter { major: 24, minor: 21 },
        builtins: Builtins::default(),
        limits: Limits { threads: std::thread::available_parallelism().unwrap().get(), ..Limits::default() },
    }
}

fn told(findings: &[&Finding]) -> String {
    let line = |it: &&Finding| {
        format!("{:?} {}:{} {} {:?}\n", it.kind, it.file.display(), it.line, it.specifier, it.name)
    };
    findings.iter().map(line).collect()
}

/// A plugin with one file.
fn plugin(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("package.json"),
        r#"{"name":"skewed","type":"module","main":"index.js"}"#,
    )
    .unwrap();
    std::fs::write(directory.path().join("index.js"), text).unwrap();
    directory
}

/// A pristine version, a copy of it to plant faults in, and what is known of both.
struct Bed {
    copy: Copy,
    cache: Cache,
    before: Checked,
}

impl Bed {
    fn of(version: &str) -> Bed {
        let copy = Copy::of(installed(version).ancestors().nth(2).unwrap());
        let mut cache = Cache::default();
        let before = check(&trees(&copy.core(), &[]), &mut cache).unwrap();
        Bed { copy, cache, before }
    }

    /// What is new with these plugins and whatever was planted.
    fn regressions(&mut self, plugins: &[&Path]) -> Vec<Finding> {
        let now = check(&trees(&self.copy.core(), plugins), &mut self.cache).unwrap();
        regressions(&now.findings, &self.before.findings).into_iter().cloned().collect()
    }
}

#[test]
fn healthy_versions_are_no_regression_of_each_other() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "healthy_versions_are_no_regression_of_each_other") {
        return;
    }
    let (old, new) = (installed(OLD), installed(NEW));
    let mut cache = Cache::default();
    let old = check(&trees(&old, &[]), &mut cache).unwrap();
    let new = check(&trees(&new, &[]), &mut cache).unwrap();
    for checked in [&old, &new] {
        println!("{} modules, {} imports, {} names", checked.modules, checked.imports, checked.names);
        println!("{}", told(&checked.findings.iter().collect::<Vec<_>>()));
        assert!(checked.modules > 9_000 && checked.names > 40_000, "the tree was read");
        assert!(checked.findings.iter().all(|finding| finding.weight == Weight::Soft));
        let strange = checked.findings.iter().filter(|finding| !finding.is_optional());
        let strange: Vec<_> = strange.map(|it| (it.package.as_str(), it.specifier.as_str())).collect();
        assert_eq!(strange, []);
    }
    assert_eq!(told(&regressions(&new.findings, &old.findings)), "");
    assert_eq!(told(&regressions(&old.findings, &new.findings)), "");
}

#[test]
fn the_six_planted_faults_are_found_and_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "the_six_planted_faults_are_found_and_nothing_else") {
        return;
    }
    let mut bed = Bed::of(NEW);
    let good = plugin(&format!("import {{ {SYMBOL} }} from \"openclaw/plugin-sdk/channel-streaming\";\n"));
    assert_eq!(bed.regressions(&[good.path()]), []);

    let text = Text::of(&bed.copy.core());
    // A chunk that is only imported dynamically, and one that is imported statically.
    for is_dynamic in [true, false] {
        let chunk = text
            .chunks()
            .find(|it| !it.importers.is_empty() && it.importers.iter().all(|i| i.is_dynamic == is_dynamic));
        let chunk = chunk.expect("there is one of either kind");
        let removed = bed.copy.remove(&chunk.path);
        let found = bed.regressions(&[]);
        assert_eq!(planted::places(&found), chunk.places(), "{}", told(&found.iter().collect::<Vec<_>>()));
        bed.copy.put_back(removed);
    }

    let lost = plugin("import { x } from \"openclaw/plugin-sdk/no-such-path\";\n");
    let found = bed.regressions(&[lost.path()]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].kind, found[0].line, found[0].weight), (Kind::PathNotExported, 1, Weight::Hard));

    let entry = bed.copy.core().join("dist/index.js");
    let replaced = bed.copy.replace(&entry, |text| text.replacen("import ", "import import ", 1));
    let found = bed.regressions(&[]);
    assert!(
        found.iter().any(|it| it.kind == Kind::Syntax
            && it.file == entry
            && it.weight == Weight::Hard
            && it.line > 0)
    );
    assert_eq!(found.len(), 1, "{}", told(&found.iter().collect::<Vec<_>>()));
    bed.copy.put_back(replaced);

    let chunk = text.chunks().find(|it| {
        it.name().starts_with("channel-streaming-") && it.exports.iter().any(|e| e.local == SYMBOL)
    });
    let chunk = chunk.expect("the symbol is exported by a chunk");
    let export = chunk.exports.iter().find(|export| export.local == SYMBOL).unwrap();
    let renamed = bed.copy.replace(&chunk.path, |text| export.renamed_in(text));
    let found = bed.regressions(&[]);
    let expected = chunk.named_places(&export.exported);
    assert!(
        expected.len() > 1 && expected.is_subset(&planted::named_places(&found)),
        "{}",
        told(&found.iter().collect::<Vec<_>>())
    );
    assert!(found.iter().all(|it| it.name.as_deref() == Some(&*export.exported)));
    bed.copy.put_back(renamed);

    let skewed = plugin("import { noSuchName } from \"openclaw/plugin-sdk/channel-streaming\";\n");
    let found = bed.regressions(&[skewed.path()]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].kind, found[0].name.as_deref(), found[0].line),
        (Kind::MissingExport, Some("noSuchName"), 1)
    );
}

#[test]
fn the_incidents_own_plugin_is_refused_by_the_old_version_and_accepted_by_the_new() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = "the_incidents_own_plugin_is_refused_by_the_old_version_and_accepted_by_the_new";
    if !slow::is_asked_for("real", name) {
        return;
    }
    let plugin = plugin(&format!(
        "\nimport {{ {SYMBOL} }} from \"openclaw/plugin-sdk/channel-streaming\";\nexport default {SYMBOL};\n"
    ));
    let mut cache = Cache::default();
    let old = check(&trees(&installed(OLD), &[plugin.path()]), &mut cache).unwrap();
    let new = check(&trees(&installed(NEW), &[plugin.path()]), &mut cache).unwrap();
    let found = regressions(&old.findings, &new.findings);
    assert_eq!(found.len(), 1, "{}", told(&found));
    assert_eq!(
        found[0].text,
        format!(
            "SyntaxError: The requested module 'openclaw/plugin-sdk/channel-streaming' does not provide an export named '{SYMBOL}'"
        )
    );
    assert_eq!((found[0].package.as_str(), found[0].line, found[0].reach), ("skewed", 2, Reach::Start));
    assert_eq!(told(&regressions(&new.findings, &old.findings)), "");
}

#[test]
fn each_chunk_that_is_removed_is_missed_at_every_place_that_imports_it() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "each_chunk_that_is_removed_is_missed_at_every_place_that_imports_it") {
        return;
    }
    let (mut bed, mut dice) = (Bed::of(NEW), Dice::thrown());
    let text = Text::of(&bed.copy.core());
    let candidates: Vec<_> = text.chunks().filter(|chunk| !chunk.importers.is_empty()).collect();
    let mut places = 0;
    let plants = plants();
    for _ in 0..plants {
        let chunk = candidates[dice.below(candidates.len())];
        let removed = bed.copy.remove(&chunk.path);
        let found = bed.regressions(&[]);
        let expected = chunk.places();
        assert!(
            expected.is_subset(&planted::places(&found)),
            "{}: {}",
            chunk.name(),
            told(&found.iter().collect::<Vec<_>>())
        );
        assert!(
            found.iter().all(|it| it.text.contains(chunk.name()) || chunk.is_named_by(it)),
            "{}",
            told(&found.iter().collect::<Vec<_>>())
        );
        places += expected.len();
        bed.copy.put_back(removed);
    }
    println!("{plants} chunks of {}, {places} places, all found", candidates.len());
    assert_eq!(bed.regressions(&[]), []);
}

#[test]
fn each_export_that_is_renamed_is_missed_at_every_place_that_imports_it() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "each_export_that_is_renamed_is_missed_at_every_place_that_imports_it") {
        return;
    }
    let (mut bed, mut dice) = (Bed::of(NEW), Dice::thrown());
    let text = Text::of(&bed.copy.core());
    let candidates: Vec<_> = text
        .chunks()
        .flat_map(|chunk| chunk.exports.iter().map(move |export| (chunk, export)))
        .filter(|(chunk, export)| !chunk.named_places(&export.exported).is_empty())
        .collect();
    let mut places = 0;
    let plants = plants();
    for _ in 0..plants {
        let (chunk, export) = candidates[dice.below(candidates.len())];
        let replaced = bed.copy.replace(&chunk.path, |text| export.renamed_in(text));
        let found = bed.regressions(&[]);
        let expected = chunk.named_places(&export.exported);
        let what = || {
            format!("{} of {}: {}", export.exported, chunk.name(), told(&found.iter().collect::<Vec<_>>()))
        };
        assert!(expected.is_subset(&planted::named_places(&found)), "{expected:?} {}", what());
        assert!(found.iter().all(|it| it.name.as_deref() == Some(&*export.exported)), "{}", what());
        places += expected.len();
        bed.copy.put_back(replaced);
    }
    println!("{plants} exports of {}, {places} places, all found", candidates.len());
    assert_eq!(bed.regressions(&[]), []);
}

#[test]
fn a_tree_between_two_versions_is_broken_wherever_it_is() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "a_tree_between_two_versions_is_broken_wherever_it_is") {
        return;
    }
    let (mut bed, mut dice) = (Bed::of(OLD), Dice::thrown());
    let newer = installed(NEW);
    for percent in [1, 10, 50, 90, 99] {
        let written = bed.copy.overlay(&newer, &mut dice, percent);
        let found = bed.regressions(&[]);
        let text = Text::of(&bed.copy.core());
        let expected = text.lost();
        println!(
            "{percent} % of the files are new: {} findings, {} lost chunks",
            found.len(),
            expected.len()
        );
        let places = planted::places(&found);
        let missed: Vec<_> = expected.iter().filter(|place| !places.contains(*place)).collect();
        assert!(missed.is_empty(), "{missed:?}");
        assert!(percent == 1 || !found.is_empty());
        written.into_iter().rev().for_each(|it| bed.copy.put_back(it));
    }
    assert_eq!(bed.regressions(&[]), []);
}
