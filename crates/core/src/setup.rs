//! What the settings of a service say that decides what a start of it is. It must not know what they say.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// Each part of it by its name, as a digest. Empty: not known, as in journals from before it was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Setup(pub BTreeMap<String, String>);

impl Hash for Setup {
    /// What is not known leaves no mark: a state that was written down before it was noted is still that state.
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.is_known() {
            self.0.hash(state);
        }
    }
}

impl Setup {
    /// Whether it was noted.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// These parts of it.
    #[must_use]
    pub fn only(&self, names: &[&str]) -> Self {
        let parts = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Self(parts.map(|(name, digest)| (name.clone(), digest.clone())).collect())
    }

    /// The parts that are another in `other`, by their names.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let differs = |name: &&String| self.0.get(*name) != other.0.get(*name);
        names.filter(differs).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_that_differ_are_named_whichever_side_lacks_them() {
        let setup = |parts: &[(&str, &str)]| {
            Setup(parts.iter().map(|(name, digest)| ((*name).into(), (*digest).into())).collect())
        };
        let before = setup(&[("command", "1"), ("state", "1"), ("user", "1")]);
        let after = setup(&[("command", "2"), ("user", "1"), ("port", "1")]);
        assert_eq!(before.differing(&after), ["command", "state", "port"]);
        assert!(before.differing(&before).is_empty());
        assert_eq!(before.only(&["user", "port"]).differing(&after.only(&["user", "port"])), ["port"]);
    }
}
