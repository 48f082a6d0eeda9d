//! Core and plugins are one closure, and a judgement is a comparison.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

use cutover_imports::{Alias, Cache, Finding, Kind, Reach, Root, Scope, Trees, Weight, check, regressions};
use std::fs;
use std::path::Path;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn root(directory: &Path) -> Root {
    Root { directory: directory.to_owned(), entries: Vec::new(), scope: Scope::Whole }
}

fn found(trees: &Trees) -> Vec<Finding> {
    check(trees, &mut Cache::default()).unwrap().findings
}

fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
    let tree = tree(files);
    found(&Trees { roots: vec![root(tree.path())], ..Trees::default() })
}

fn host(names: &str) -> tempfile::TempDir {
    tree(&[
        (
            "package.json",
            r#"{"name":"host","type":"module","exports":{".":"./main.js","./sdk/*":"./sdk/*.js"}}"#,
        ),
        ("main.js", "export {};"),
        ("sdk/channel.js", &format!("export const {names} = 1;")),
    ])
}

#[test]
fn a_plugin_is_linked_against_the_host_that_is_given_and_not_against_its_own_copy() {
    let (old, new) = (host("a"), host("a = 2, b"));
    let plugin = tree(&[
        ("package.json", r#"{"name":"plugin","type":"module","main":"./index.js"}"#),
        (
            "index.js",
            "import { a, b } from 'host/sdk/channel';\nimport 'host/sdk/gone';\nimport 'host/private.js';",
        ),
        ("node_modules/host/package.json", r#"{"name":"host","exports":{"./sdk/*":"./index.js"}}"#),
        ("node_modules/host/index.js", "exports.a = exports.b = 1;"),
    ]);
    let against = |host: &Path| {
        let alias = Alias { package: "host".to_owned(), directory: host.to_owned() };
        found(&Trees {
            roots: vec![root(host), root(plugin.path())],
            aliases: vec![alias],
            ..Trees::default()
        })
    };
    let kinds = |found: &[Finding]| found.iter().map(|it| (it.kind, it.line)).collect::<Vec<_>>();
    let (with_old, with_new) = (against(old.path()), against(new.path()));
    let both = [(Kind::ModuleNotFound, 2), (Kind::PathNotExported, 3)];
    assert_eq!(kinds(&with_new), both);
    assert_eq!(kinds(&with_old), [(Kind::MissingExport, 1), both[0], both[1]]);
    assert!(with_old.iter().all(|it| it.package == "plugin" && it.weight == Weight::Hard));
    assert_eq!(regressions(&with_old, &with_new), [&with_old[0]]);
    assert_eq!(regressions(&with_new, &with_old), [] as [&Finding; 0]);
}

#[test]
fn weight_and_reach_follow_from_the_way_there() {
    let found = findings(&[
        ("package.json", r#"{"name":"a","type":"module","main":"./main.js"}"#),
        ("main.js", "import './near.js';\nconst f = () => import('./far.js');\nawait import('gone-1');"),
        ("near.js", "import 'gone-2';\nimport('gone-3').catch(() => {});"),
        ("far.js", "import 'gone-4';\nimport './farther.cjs';"),
        (
            "farther.cjs",
            "require('gone-5');\ntry { require('./gone-6.cjs'); } catch {}\nif (a) require('gone-7');",
        ),
        ("lonely.js", "import 'gone-8';"),
    ]);
    let mut told: Vec<_> =
        found.iter().map(|it| (it.specifier.as_str(), it.weight, it.reach, it.is_optional())).collect();
    told.sort_by_key(|it| it.0.trim_start_matches("./"));
    assert_eq!(
        told,
        [
            ("gone-1", Weight::Hard, Reach::Start, false),
            ("gone-2", Weight::Hard, Reach::Start, false),
            ("gone-3", Weight::Soft, Reach::Start, true),
            ("gone-4", Weight::Soft, Reach::Later, true),
            ("gone-5", Weight::Soft, Reach::Later, true),
            ("./gone-6.cjs", Weight::Soft, Reach::Later, true),
            ("gone-7", Weight::Soft, Reach::Later, true),
            ("gone-8", Weight::Soft, Reach::Apart, true),
        ]
    );
}

#[test]
fn a_name_taken_from_a_dynamic_import_is_looked_for_too() {
    let found = findings(&[
        ("package.json", r#"{"type":"module","main":"./main.js"}"#),
        (
            "main.js",
            "const { a, b } = await import('./o.js');\n\
             import('./o.js').then((n) => n.a);\n\
             import('./o.js').then((n) => n.c);\n\
             import('./o.js').then(({ a, d }) => a + d);\n\
             (await import('./o.js')).e;\n\
             const { f = 1, ...rest } = await import('./o.js');\n",
        ),
        ("o.js", "export const a = 1;"),
    ]);
    let told: Vec<_> =
        found.iter().map(|it| (it.line, it.name.as_deref().unwrap(), it.kind, it.weight)).collect();
    let undefined = |line, name| (line, name, Kind::UndefinedName, Weight::Soft);
    assert_eq!(told, [undefined(1, "b"), undefined(3, "c"), undefined(4, "d"), undefined(5, "e")]);
}

#[test]
fn what_both_versions_lack_is_no_regression_whatever_the_bundler_calls_the_file() {
    let version = |hash: &str, how: &str| {
        let file = format!("dist/driver-{hash}.js");
        findings(&[
            ("node_modules/app/package.json", r#"{"name":"app","type":"module"}"#),
            ("package.json", r#"{"name":"outer","type":"module"}"#),
            (&file, &format!("{how}\nimport('./addon-{hash}.js');")),
        ])
    };
    let lazily = "const f = () => import('optional');";
    let old = version("AAAAAAA1", lazily);
    assert_eq!(old.len(), 2);
    assert_eq!(regressions(&version("BBBBBBB2", lazily), &old), [] as [&Finding; 0]);
    let more = version("CCCCCCC3", &format!("{lazily}import('other');"));
    let new = regressions(&more, &old);
    assert_eq!(new.iter().map(|it| it.specifier.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn what_was_optional_and_is_needed_now_is_a_regression() {
    let version = |text: &str| {
        findings(&[("package.json", r#"{"name":"app","type":"module","main":"main.js"}"#), ("main.js", text)])
    };
    let (old, new) = (version("const f = () => import('optional');"), version("import 'optional';"));
    assert_eq!((old[0].weight, new[0].weight), (Weight::Soft, Weight::Hard));
    assert_eq!(regressions(&new, &old), [&new[0]]);
    assert_eq!(regressions(&old, &new), [] as [&Finding; 0]);
}

#[test]
fn an_entry_point_that_is_not_there_is_told() {
    let found = findings(&[
        (
            "package.json",
            r#"{"name":"a","bin":{"a":"./bin.mjs"},"exports":{".":"./gone.mjs","./x":"./x.mjs"}}"#,
        ),
        ("x.mjs", "import './broken.mjs';"),
        ("broken.mjs", "export {"),
    ]);
    let told: Vec<_> = found.iter().map(|it| (it.place.as_str(), it.kind, it.weight)).collect();
    assert_eq!(
        told,
        [
            ("broken.mjs", Kind::Syntax, Weight::Hard),
            ("package.json", Kind::ModuleNotFound, Weight::Hard),
            ("package.json", Kind::ModuleNotFound, Weight::Hard),
        ]
    );
}

#[test]
fn a_directory_that_is_none_is_an_error_and_no_empty_success() {
    let trees = Trees { roots: vec![root(Path::new("/no/such/directory"))], ..Trees::default() };
    assert!(check(&trees, &mut Cache::default()).is_err());
}
