//! What was read once is not read again, and a cache is never more than that.
#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

use cutover_imports::{Cache, Checked, Error, Limits, Root, Scope, Trees, check, check_unless};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

fn checked(root: &Path, cache: &mut Cache) -> Checked {
    let root = Root { directory: root.to_owned(), entries: vec!["main.mjs".into()], scope: Scope::Reachable };
    check(&Trees { roots: vec![root], limits: Limits::default(), ..Trees::default() }, cache).unwrap()
}

fn tree(main: &str, other: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("main.mjs"), main).unwrap();
    fs::write(root.path().join("other.mjs"), other).unwrap();
    root
}

#[test]
fn findings_are_the_same_with_a_cache_that_was_carried_over() {
    let tree = tree("import { a } from './other.mjs';\nimport('./gone.mjs');", "export const b = 1;");
    let file = tree.path().join("cache");
    let mut cache = Cache::load(&file).unwrap();
    assert!(cache.is_empty());
    let first = checked(tree.path(), &mut cache).findings;
    assert_eq!((first.len(), cache.len()), (2, 2));
    cache.save(&file).unwrap();
    let mut carried = Cache::load(&file).unwrap();
    assert_eq!(carried.len(), 2);
    assert_eq!(checked(tree.path(), &mut carried).findings, first);
    assert_eq!(carried.len(), 2);
}

#[test]
fn a_check_that_is_given_up_reads_no_further_and_is_no_answer() {
    let tree = tree("import { a } from './other.mjs';", "export const a = 1;");
    let root =
        Root { directory: tree.path().to_owned(), entries: vec!["main.mjs".into()], scope: Scope::Reachable };
    let trees = Trees { roots: vec![root], ..Trees::default() };
    let (asked, mut cache) = (AtomicUsize::new(0), Cache::default());
    let given_up = check_unless(&trees, &mut cache, &|| asked.fetch_add(1, Ordering::Relaxed) > 0);
    assert!(matches!(given_up, Err(Error::GivenUp)));
    assert_eq!(cache.len(), 1, "the first module was read, the second was not");
}

#[test]
fn a_file_that_changed_is_read_again() {
    let tree = tree("import { a } from './other.mjs';", "export const a = 1;");
    let mut cache = Cache::default();
    assert_eq!(checked(tree.path(), &mut cache).findings, []);
    fs::write(tree.path().join("other.mjs"), "export const b = 1;").unwrap();
    assert_eq!(checked(tree.path(), &mut cache).findings.len(), 1);
    fs::write(tree.path().join("other.mjs"), "export const a = 1;").unwrap();
    assert_eq!(checked(tree.path(), &mut cache).findings, []);
}

#[test]
fn the_same_text_is_not_the_same_module_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("main.mjs"), "import './a.mjs';\nimport './a.cjs';").unwrap();
    for name in ["a.mjs", "a.cjs"] {
        fs::write(root.path().join(name), "export const a = 1;").unwrap();
    }
    let found = checked(root.path(), &mut Cache::default()).findings;
    assert_eq!(found.len(), 1);
    assert!(found[0].file.ends_with("a.cjs"));
}

#[test]
fn what_was_of_no_use_is_forgotten() {
    let old = tree("import './other.mjs';", "export const old = 1;");
    let new = tree("import './other.mjs';", "export const new_ = 1;");
    let file = old.path().join("cache");
    let mut cache = Cache::default();
    let _ = checked(old.path(), &mut cache);
    cache.save(&file).unwrap();
    let mut cache = Cache::load(&file).unwrap();
    let _ = checked(new.path(), &mut cache);
    assert_eq!(cache.len(), 3);
    cache.save(&file).unwrap();
    assert_eq!(Cache::load(&file).unwrap().len(), 2);
}

#[test]
fn a_torn_cache_is_an_empty_one() {
    let tree = tree("import './other.mjs';", "");
    let file = tree.path().join("cache");
    let mut cache = Cache::default();
    let _ = checked(tree.path(), &mut cache);
    cache.save(&file).unwrap();
    let whole = fs::read(&file).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(Cache::load(&file).unwrap().is_empty(), "cut at {cut}");
    }
    fs::write(&file, String::from_utf8(whole).unwrap().replacen("\"version\":1", "\"version\":0", 1))
        .unwrap();
    assert!(Cache::load(&file).unwrap().is_empty());
}
