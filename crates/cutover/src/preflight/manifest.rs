//! `package.json`, as far as it says what must be there.
//!
//! Knows the format. Must not know what is on disk.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What a package says of itself. Fields that are not what they should be count as absent: node takes them so too.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    version: Value,
    #[serde(default)]
    main: Value,
    #[serde(default)]
    bin: Value,
    #[serde(default)]
    exports: Value,
    #[serde(default)]
    engines: Value,
}

/// Conditions under which node itself may choose a target. Others are for bundlers, browsers and type checkers.
const CONDITIONS: [&str; 6] = ["node", "node-addons", "import", "require", "module-sync", "default"];

/// How deep conditions are followed; the deepest that are seen in packages have four.
const DEPTH_MAX: usize = 16;

impl Manifest {
    /// Reads `package.json` in a directory; `None` if there is none.
    pub(super) fn read(package: &Path) -> Result<Option<Self>, String> {
        let path = package.join("package.json");
        match std::fs::read(&path) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .map_err(|error| format!("{} is not a package's description: {error}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    }

    /// As leniently as npm does it: with a byte order mark, with other bytes than UTF-8, and of two fields with one name
    /// the last counts.
    fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let text = String::from_utf8_lossy(text);
        let fields: Map<String, Value> = serde_json::from_str(text.trim_start_matches('\u{feff}'))?;
        serde_json::from_value(Value::Object(fields))
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_str()
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_str()
    }

    /// Name and version, for people.
    pub(super) fn title(&self) -> String {
        let name = self.name().unwrap_or("the package");
        self.version().map_or_else(|| name.to_owned(), |version| format!("{name} {version}"))
    }

    /// The range of node versions that it needs.
    pub(super) fn node(&self) -> Option<&str> {
        self.engines.get("node")?.as_str()
    }

    /// What `require` of the package itself loads where there are no exports.
    pub(super) fn main(&self) -> Option<&str> {
        if self.exports.is_null() { self.main.as_str() } else { None }
    }

    /// The files behind its commands, by command.
    pub(super) fn bin(&self) -> BTreeMap<String, String> {
        match &self.bin {
            Value::String(path) => {
                BTreeMap::from([(self.name().unwrap_or_default().to_owned(), path.clone())])
            }
            Value::Object(commands) => commands
                .iter()
                .filter_map(|(name, path)| Some((name.clone(), path.as_str()?.to_owned())))
                .collect(),
            _ => BTreeMap::new(),
        }
    }

    /// Subpath and file of everything that node may export, patterns left out.
    pub(super) fn exports(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        match &self.exports {
            Value::Object(map) if map.keys().any(|key| key.starts_with('.')) => {
                for (subpath, target) in map.iter().filter(|(subpath, _)| !subpath.contains('*')) {
                    add_targets(subpath, target, DEPTH_MAX, &mut found);
                }
            }
            other => add_targets(".", other, DEPTH_MAX, &mut found),
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn add_targets(subpath: &str, target: &Value, depth: usize, found: &mut Vec<(String, String)>) {
    let Some(below) = depth.checked_sub(1) else { return };
    match target {
        Value::String(path) if path.starts_with("./") && !path.contains('*') => {
            found.push((subpath.to_owned(), path.clone()));
        }
        // Of alternatives node takes the first that it understands, whether or not its file is there.
        Value::Array(alternatives) => {
            if let Some(first) = alternatives.first() {
                add_targets(subpath, first, below, found);
            }
        }
        Value::Object(conditions) => {
            for chosen in reachable(conditions) {
                add_targets(subpath, chosen, below, found);
            }
        }
        _ => {}
    }
}

fn reachable(conditions: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    conditions.iter().filter(|(name, _)| CONDITIONS.contains(&name.as_str())).map(|(_, target)| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(text: &str) -> Vec<(String, String)> {
        let manifest: Manifest = serde_json::from_str(&format!("{{\"exports\":{text}}}")).unwrap();
        manifest.exports()
    }

    fn pair(subpath: &str, path: &str) -> (String, String) {
        (subpath.into(), path.into())
    }

    #[test]
    fn what_node_may_choose_is_exported_and_nothing_else() {
        assert_eq!(exports("\"./a.js\""), [pair(".", "./a.js")]);
        let nested = r#"{".":{"types":"./a.d.ts","node":{"import":"./a.mjs","require":"./a.cjs"},"browser":"./b.js"},
            "./*":"./lib/*.js","./x":["./x.js","./y.js"],"./none":null}"#;
        assert_eq!(exports(nested), [pair(".", "./a.cjs"), pair(".", "./a.mjs"), pair("./x", "./x.js")]);
        assert_eq!(exports("null"), []);
    }

    #[test]
    fn fields_of_the_wrong_kind_are_absent() {
        let odd = r#"{"name":1,"main":[],"bin":[1],"engines":["node"],"exports":7}"#;
        let manifest: Manifest = serde_json::from_str(odd).unwrap();
        assert_eq!((manifest.name(), manifest.main(), manifest.node()), (None, None, None));
        assert!(manifest.bin().is_empty() && manifest.exports().is_empty());
    }

    #[test]
    fn what_npm_can_read_can_be_read() {
        let odd = b"\xef\xbb\xbf{\"name\":\"a\",\"author\":\"\xe9\",\"name\":\"b\"}";
        assert_eq!(Manifest::parse(odd).unwrap().name(), Some("b"));
        assert!(Manifest::parse(b"[]").is_err() && Manifest::parse(b"").is_err());
    }

    #[test]
    fn endless_conditions_end() {
        let deep = format!("{}\"./a.js\"{}", "{\"node\":".repeat(60), "}".repeat(60));
        assert_eq!(exports(&deep), []);
    }
}
