//! What node reads of a `package.json`.
//!
//! Knows the shape; must not know how a target is chosen. The order of conditions is kept, since it decides.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The parts of a manifest that matter for finding modules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) name: Option<String>,
    pub(crate) main: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) exports: Option<Target>,
    pub(crate) imports: Option<Target>,
    /// The paths of its commands.
    pub(crate) commands: Vec<String>,
}

/// What `type` says of files that end in `.js`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    Module,
    CommonJs,
    #[default]
    Unsaid,
}

/// A value of `exports` or `imports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Null,
    Path(String),
    Choice(Vec<(String, Target)>),
    List(Vec<Target>),
    /// A number, a boolean: what node refuses.
    Invalid,
}

impl Manifest {
    /// `None` if it is not an object in JSON.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Manifest> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let Target::Choice(fields) = serde_json::from_slice(bytes).ok()? else { return None };
        let mut manifest = Manifest::default();
        for (key, value) in fields {
            match (key.as_str(), value) {
                ("name", Target::Path(name)) => manifest.name = Some(name),
                ("main", Target::Path(main)) => manifest.main = Some(main),
                ("type", Target::Path(kind)) if kind == "module" => manifest.kind = Kind::Module,
                ("type", Target::Path(kind)) if kind == "commonjs" => manifest.kind = Kind::CommonJs,
                ("exports", value) if value != Target::Null => manifest.exports = Some(value),
                ("imports", value @ Target::Choice(_)) => manifest.imports = Some(value),
                ("bin", Target::Path(path)) => manifest.commands.push(path),
                ("bin", Target::Choice(paths)) => {
                    manifest.commands.extend(paths.into_iter().filter_map(|(_, path)| path.into_path()));
                }
                _ => {}
            }
        }
        Some(manifest)
    }
}

impl Target {
    fn into_path(self) -> Option<String> {
        match self {
            Target::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Target, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Target;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Target, E> {
                Ok(Target::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Target, E> {
                Ok(Target::Invalid)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Target, E> {
                Ok(Target::Invalid)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Target, E> {
                Ok(Target::Invalid)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Target, E> {
                Ok(Target::Invalid)
            }

            fn visit_str<E>(self, value: &str) -> Result<Target, E> {
                Ok(Target::Path(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Target, E> {
                Ok(Target::Path(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Target, A::Error> {
                let mut list = Vec::new();
                while let Some(target) = seq.next_element()? {
                    list.push(target);
                }
                Ok(Target::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Target, A::Error> {
                let mut choice = Vec::new();
                while let Some((key, target)) = map.next_entry()? {
                    choice.push((key, target));
                }
                Ok(Target::Choice(choice))
            }
        }
        from.deserialize_any(Any)
    }
}

/// Whether the bytes are JSON.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_order() {
        let manifest =
            Manifest::parse(br#"{"name":"a","exports":{"z":"./z","a":["./a",null]},"bin":{"x":"./x"}}"#);
        let manifest = manifest.unwrap();
        let path = |path: &str| Target::Path(path.to_owned());
        let list = Target::List(vec![path("./a"), Target::Null]);
        assert_eq!(
            manifest.exports,
            Some(Target::Choice(vec![("z".to_owned(), path("./z")), ("a".to_owned(), list)]))
        );
        assert_eq!(manifest.commands, ["./x"]);
    }

    #[test]
    fn what_is_no_object_is_no_manifest() {
        for text in ["", "[]", "null", "{\"name\":", "\0\0\0\0"] {
            assert!(Manifest::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn nesting_without_end_is_no_manifest_and_no_crash() {
        assert!(Manifest::parse("[".repeat(1_000_000).as_bytes()).is_none());
        assert!(
            Manifest::parse(format!("{{\"exports\":{}", "{\"a\":".repeat(1_000_000)).as_bytes()).is_none()
        );
    }
}
