//! The real gateway's packages: faults that are planted are found, one and all, and nothing else is complained of.
#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

mod planted;

use cutover_imports::{
    Alias, Builtins, Cache, Checked, Finding, Interpreter, Kind, Limits, Reach, Weight, regressions,
};
use cutover_imports::{Root, Scope, Trees, check};
use cutover_testkit::openclaw::{LATEST, NEW, OLD, PLUGIN, PLUGIN_VERSIONS, Runtime};
use cutover_testkit::slow;
use planted::{Copy, Dice, Text};
use std::collections::BTreeSet;
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

/// Where a version of the gateway's plugin lies.
fn installed_plugin(version: &str) -> PathBuf {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Runtime::kept_in(&cache(), INSTALL).await.unwrap();
        let package = format!("{PLUGIN}@{version}");
        let project = cache().join("programs").join(package.replace('/', "+"));
        node.packages(&[&package], &project, INSTALL).await.unwrap().join(PLUGIN)
    })
}

fn trees(core: &Path, plugins: &[&Path]) -> Trees {
    let root = |directory: &Path| {
        let entries = if directory.ends_with(PLUGIN) { vec!["dist/index.js".into()] } else { Vec::new() };
        Root { directory: directory.to_owned(), entries, scope: Scope::Whole }
    };
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
    /// The gateway's own plugin in the copy, if it has one.
    plugin: Option<PathBuf>,
    cache: Cache,
    before: Checked,
}

impl Bed {
    fn of(version: &str) -> Bed {
        Bed::made(Copy::of(installed(version).ancestors().nth(2).unwrap()), None)
    }

    fn with_plugin(version: &str) -> Bed {
        let copy = Copy::of(installed(version).ancestors().nth(2).unwrap());
        let plugin = copy.add(&installed_plugin(version), PLUGIN);
        Bed::made(copy, Some(plugin))
    }

    fn made(copy: Copy, plugin: Option<PathBuf>) -> Bed {
        let mut cache = Cache::default();
        let plugins: Vec<&Path> = plugin.as_deref().into_iter().collect();
        let before = check(&trees(&copy.core(), &plugins), &mut cache).unwrap();
        Bed { copy, plugin, cache, before }
    }

    /// What is new with these plugins and whatever was planted.
    fn regressions(&mut self, plugins: &[&Path]) -> Vec<Finding> {
        let plugins: Vec<&Path> = self.plugin.as_deref().into_iter().chain(plugins.iter().copied()).collect();
        let now = check(&trees(&self.copy.core(), &plugins), &mut self.cache).unwrap();
        regressions(&now.findings, &self.before.findings).into_iter().cloned().collect()
    }
}

/// What a check tells of a healthy version: nothing but optional packages, files too large to be read, and names that a
/// browser's code asks of what is empty there; and none of it is loaded at the start.
fn strange(checked: &Checked) -> Vec<&Finding> {
    let is_harmless = |it: &Finding| {
        it.is_optional()
            || it.reach == Reach::Apart && matches!(it.kind, Kind::OverLimit | Kind::UndefinedName)
    };
    checked.findings.iter().filter(|it| !is_harmless(it) || it.weight == Weight::Hard).collect()
}

#[test]
fn healthy_versions_are_no_regression_of_each_other() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "healthy_versions_are_no_regression_of_each_other") {
        return;
    }
    for (pair, has_plugin) in [([OLD, NEW], false), (LATEST, true)] {
        let mut cache = Cache::default();
        let [old, new] = pair.map(|version| {
            let plugin = has_plugin.then(|| installed_plugin(version));
            let plugins: Vec<&Path> = plugin.as_deref().into_iter().collect();
            check(&trees(&installed(version), &plugins), &mut cache).unwrap()
        });
        for checked in [&old, &new] {
            println!("{} modules, {} imports, {} names", checked.modules, checked.imports, checked.names);
            println!("{}", told(&checked.findings.iter().collect::<Vec<_>>()));
            assert!(checked.modules > 9_000 && checked.names > 40_000, "the tree was read");
            assert_eq!(told(&strange(checked)), "");
        }
        let is_certain = |it: &&Finding| !it.is_optional() && it.kind != Kind::OverLimit;
        for (now, before) in [(&new, &old), (&old, &new)] {
            let found = regressions(&now.findings, &before.findings);
            let found: Vec<&Finding> = found.into_iter().filter(is_certain).collect();
            assert_eq!(told(&found), "", "{pair:?}");
        }
    }
}

#[test]
fn the_six_planted_faults_are_found_and_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !slow::is_asked_for("real", "the_six_planted_faults_are_found_and_nothing_else") {
        return;
    }
    six_are_found(Bed::of(NEW), "openclaw/plugin-sdk/channel-streaming");
}

#[test]
fn the_six_planted_faults_are_found_in_the_latest_version_with_its_plugin() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = "the_six_planted_faults_are_found_in_the_latest_version_with_its_plugin";
    if !slow::is_asked_for("real", name) {
        return;
    }
    six_are_found(Bed::with_plugin(LATEST[1]), "openclaw/plugin-sdk/channel-outbound");
}

/// `sdk` is the path by which plugins get the incident's symbol.
fn six_are_found(mut bed: Bed, sdk: &str) {
    let good = plugin(&format!("import {{ {SYMBOL} }} from \"{sdk}\";\n"));
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
        let words = told(&found.iter().collect::<Vec<_>>());
        assert!(chunk.places().is_subset(&planted::places(&found)), "{}: {words}", chunk.name());
        assert!(found.iter().all(|it| chunk.is_named_by(it)), "{}: {words}", chunk.name());
        bed.copy.put_back(removed);
    }

    with_plugins_line(&mut bed, "import { x } from \"openclaw/plugin-sdk/no-such-path\";", |found| {
        assert_eq!((found.kind, found.line, found.weight), (Kind::PathNotExported, 1, Weight::Hard));
    });

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

    // The symbol itself, or another that its chunk exports under a name that several chunks import.
    let chunks = text.chunks().filter(|it| it.exports.iter().any(|export| export.local == SYMBOL));
    let exports = chunks.flat_map(|chunk| chunk.exports.iter().map(move |export| (chunk, export)));
    let (chunk, export) = exports
        .filter(|(chunk, export)| chunk.named_places(&export.exported).len() > 1)
        .max_by_key(|(_, export)| export.local == SYMBOL)
        .expect("the symbol's chunk is imported");
    let renamed = bed.copy.replace(&chunk.path, |text| export.renamed_in(text));
    let found = bed.regressions(&[]);
    let expected = chunk.named_places(&export.exported);
    assert!(
        expected.is_subset(&planted::named_places(&found)),
        "{}",
        told(&found.iter().collect::<Vec<_>>())
    );
    assert!(found.iter().all(|it| it.name.as_deref() == Some(&*export.exported)));
    bed.copy.put_back(renamed);

    with_plugins_line(&mut bed, &format!("import {{ noSuchName }} from \"{sdk}\";"), |found| {
        assert_eq!(
            (found.kind, found.name.as_deref(), found.line),
            (Kind::MissingExport, Some("noSuchName"), 1)
        );
    });
    assert_eq!(bed.regressions(&[]), []);
}

/// Plants a line at the beginning of the gateway's own plugin, or of one that is made for it.
fn with_plugins_line(bed: &mut Bed, line: &str, expect: impl FnOnce(&Finding)) {
    let found = match bed.plugin.as_ref().map(|plugin| plugin.join("dist/index.js")) {
        None => bed.regressions(&[plugin(&format!("{line}\n")).path()]),
        Some(entry) => {
            let replaced = bed.copy.replace(&entry, |text| format!("{line}\n{text}"));
            let found = bed.regressions(&[]);
            bed.copy.put_back(replaced);
            found
        }
    };
    assert_eq!(found.len(), 1, "{}", told(&found.iter().collect::<Vec<_>>()));
    expect(&found[0]);
}

#[test]
fn a_plugin_is_refused_by_a_host_that_lacks_what_it_names_and_by_no_other() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = "a_plugin_is_refused_by_a_host_that_lacks_what_it_names_and_by_no_other";
    if !slow::is_asked_for("real", name) {
        return;
    }
    let [older, newer] = LATEST;
    let [eldest, elder, ..] = PLUGIN_VERSIONS;
    let mut cache = Cache::default();
    for (host, plugin, expected) in [
        (older, older, &[][..]),
        (newer, newer, &[]),
        (newer, older, &[]),
        (older, newer, &["createLivePreviewLifecycle", "resolvePromptHistoryLimit"]),
        (newer, elder, &["privateFileStore"]),
        (newer, eldest, &["privateFileStore"]),
    ] {
        let plugin_directory = installed_plugin(plugin);
        let checked = check(&trees(&installed(host), &[&plugin_directory]), &mut cache).unwrap();
        let refused = strange(&checked);
        let names: BTreeSet<&str> = refused.iter().filter_map(|it| it.name.as_deref()).collect();
        assert_eq!(names, expected.iter().copied().collect(), "{host} with {PLUGIN} {plugin}");
        assert_eq!(refused.len(), names.len(), "{}", told(&refused));
        for it in refused {
            let (specifier, name) = (&it.specifier, it.name.as_deref().unwrap_or_default());
            assert_eq!((it.package.as_str(), it.kind), (PLUGIN, Kind::MissingExport));
            let text = format!(
                "SyntaxError: The requested module '{specifier}' does not provide an export named '{name}'"
            );
            assert_eq!(it.text, text);
        }
    }
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
