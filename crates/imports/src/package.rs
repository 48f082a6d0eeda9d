//! Which file of a package a subpath means, by its `exports` and `imports`.
//!
//! Knows node's `PACKAGE_EXPORTS_RESOLVE` and `PACKAGE_IMPORTS_RESOLVE`; must not look at a disk.

use crate::manifest::Target;
use std::cmp::Ordering;

/// Why there is no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Not listed, listed as `null`, or under no condition that holds.
    Undefined,
    /// It leads out of the package.
    Invalid(String),
}

/// What an entry of `imports` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// `./…` in the package.
    Inside(String),
    /// Another package, or a module of node's own.
    Outside(String),
}

/// Splits `name/sub` or `@scope/name/sub` into the name and `./sub`; the subpath of a bare name is `.`. `None`: node
/// takes it for no package's name.
pub(crate) fn split(specifier: &str) -> Option<(&str, String)> {
    let mut slashes = specifier.match_indices('/').map(|(at, _)| at);
    let first = slashes.next();
    let end = if specifier.starts_with('@') {
        first?;
        slashes.next()
    } else {
        first
    };
    let name = &specifier[..end.unwrap_or(specifier.len())];
    if name.is_empty() || name.starts_with('.') || name.contains(['\\', '%']) {
        return None;
    }
    Some((name, format!(".{}", &specifier[name.len()..])))
}

/// Finds `./…` for a subpath.
pub(crate) fn exported(exports: &Target, subpath: &str, conditions: &[&str]) -> Result<String, Miss> {
    let found = match exports {
        Target::Choice(keys) if keys.iter().any(|(key, _)| key.starts_with('.')) => matched(keys, subpath),
        whole if subpath == "." => Some((whole, None)),
        _ => None,
    };
    let (target, star) = found.ok_or(Miss::Undefined)?;
    match aim(target, star, conditions)?.ok_or(Miss::Undefined)? {
        Aim::Inside(path) => Ok(path),
        Aim::Outside(path) => Err(Miss::Invalid(path)),
    }
}

/// Finds what `#name` means.
pub(crate) fn imported(imports: &Target, name: &str, conditions: &[&str]) -> Result<Aim, Miss> {
    let Target::Choice(keys) = imports else { return Err(Miss::Undefined) };
    let (target, star) = matched(keys, name).ok_or(Miss::Undefined)?;
    aim(target, star, conditions)?.ok_or(Miss::Undefined)
}

/// The subpaths that `exports` lists; a pattern as it is written.
pub(crate) fn listed(exports: &Target) -> Vec<&str> {
    match exports {
        Target::Choice(keys) if keys.iter().any(|(key, _)| key.starts_with('.')) => {
            keys.iter().map(|(key, _)| key.as_str()).collect()
        }
        _ => vec!["."],
    }
}

/// The best key for a subpath, and what its star stands for.
fn matched<'t, 's>(keys: &'t [(String, Target)], subpath: &'s str) -> Option<(&'t Target, Option<&'s str>)> {
    if !subpath.contains('*')
        && !subpath.ends_with('/')
        && let Some((_, target)) = keys.iter().find(|(key, _)| key == subpath)
    {
        return Some((target, None));
    }
    let fitting = keys.iter().filter_map(|(key, target)| {
        let (head, tail) = key.split_once('*')?;
        let rest = subpath.strip_prefix(head)?;
        if tail.contains('*') || rest.len() <= tail.len() {
            return None;
        }
        Some((key, target, rest.strip_suffix(tail)?))
    });
    let best = fitting.min_by(|(a, ..), (b, ..)| order(a, b))?;
    Some((best.1, Some(best.2)))
}

/// The longer head first, then the longer key.
fn order(a: &str, b: &str) -> Ordering {
    let head = |key: &str| key.find('*').unwrap_or(key.len());
    head(b).cmp(&head(a)).then(b.len().cmp(&a.len()))
}

/// `Ok(None)`: no condition holds, try the next one further out.
fn aim(target: &Target, star: Option<&str>, conditions: &[&str]) -> Result<Option<Aim>, Miss> {
    match target {
        Target::Path(path) => path_aim(path, star).map(Some),
        Target::Choice(choice) => {
            for (condition, target) in choice {
                if condition == "default" || conditions.contains(&condition.as_str()) {
                    match aim(target, star, conditions) {
                        Ok(None) => {}
                        found => return found,
                    }
                }
            }
            Ok(None)
        }
        Target::List(list) => first(list, star, conditions),
        Target::Null => Err(Miss::Undefined),
        Target::Invalid => Err(Miss::Invalid(String::new())),
    }
}

fn first(list: &[Target], star: Option<&str>, conditions: &[&str]) -> Result<Option<Aim>, Miss> {
    let mut last = Ok(None);
    for target in list {
        match aim(target, star, conditions) {
            Ok(None) => {}
            Ok(Some(found)) => return Ok(Some(found)),
            Err(miss) => last = Err(miss),
        }
    }
    if list.is_empty() { Err(Miss::Undefined) } else { last }
}

fn path_aim(path: &str, star: Option<&str>) -> Result<Aim, Miss> {
    let full = match star {
        Some(star) => path.replace('*', star),
        None => path.to_owned(),
    };
    let Some(rest) = path.strip_prefix("./") else {
        let is_bare =
            !path.starts_with("../") && !path.starts_with('/') && !path.is_empty() && !path.contains(':');
        return if is_bare { Ok(Aim::Outside(full)) } else { Err(Miss::Invalid(full)) };
    };
    let leaves = |path: &str| path.split(['/', '\\']).any(|part| matches!(part, "." | ".." | "node_modules"));
    if leaves(rest) || star.is_some_and(leaves) { Err(Miss::Invalid(full)) } else { Ok(Aim::Inside(full)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(text: &str) -> Target {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_first_condition_that_holds_wins() {
        let exports = exports(r#"{"import":"./i.js","node":"./n.js","default":"./d.js"}"#);
        assert_eq!(exported(&exports, ".", &["node", "import"]).unwrap(), "./i.js");
        assert_eq!(exported(&exports, ".", &["node", "require"]).unwrap(), "./n.js");
        assert_eq!(exported(&exports, ".", &[]).unwrap(), "./d.js");
    }

    #[test]
    fn the_most_exact_pattern_wins_and_null_closes() {
        let exports =
            exports(r#"{"./*":"./all/*.js","./a/*":"./a/*.js","./a/private/*":null,"./a/b":"./exact.js"}"#);
        let at = |subpath| exported(&exports, subpath, &[]);
        assert_eq!(at("./x").unwrap(), "./all/x.js");
        assert_eq!(at("./a/x").unwrap(), "./a/x.js");
        assert_eq!(at("./a/b").unwrap(), "./exact.js");
        assert_eq!(at("./a/private/x"), Err(Miss::Undefined));
        assert_eq!(at("."), Err(Miss::Undefined));
    }

    #[test]
    fn a_target_outside_of_the_package_is_invalid() {
        for target in ["../x.js", "/x.js", "./../x.js", "./node_modules/x.js", "x"] {
            let exports = exports(&format!("\"{target}\""));
            assert!(matches!(exported(&exports, ".", &[]), Err(Miss::Invalid(_))), "{target}");
        }
    }

    #[test]
    fn names_are_split_as_node_splits_them() {
        assert_eq!(split("a"), Some(("a", ".".to_owned())));
        assert_eq!(split("a/b/c"), Some(("a", "./b/c".to_owned())));
        assert_eq!(split("@s/a/b"), Some(("@s/a", "./b".to_owned())));
        assert_eq!(split("@s"), None);
        assert_eq!(split(""), None);
    }
}
