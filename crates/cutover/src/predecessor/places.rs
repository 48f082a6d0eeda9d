//! Whether what took the predecessor's place works on the files that the predecessor worked on.

use super::Record;
use crate::probe::Places;
use crate::resolved::real;
use std::path::Path;

impl Record {
    /// What of the predecessor's files is not what lies where its successor tells that its own lie, in words; `None` if all that
    /// the predecessor told is the same.
    #[must_use]
    pub fn moved(&self, now: &Places) -> Option<String> {
        let old = &self.terms.told;
        moved("state", old.state.as_deref(), now.state.as_deref())
            .or_else(|| moved("configuration", old.configuration.as_deref(), now.configuration.as_deref()))
    }
}

fn moved(what: &str, old: Option<&Path>, new: Option<&Path>) -> Option<String> {
    let old = old?;
    match new {
        Some(new) if real(new) == real(old) => None,
        Some(new) => Some(format!(
            "the copy tells that its {what} is {}, and that of the old process is {}",
            new.display(),
            old.display()
        )),
        None => Some(format!(
            "the copy does not tell where its {what} is, and that of the old process is {}",
            old.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(state: &Path, configuration: Option<&Path>) -> Places {
        Places { state: Some(state.to_owned()), configuration: configuration.map(Path::to_owned) }
    }

    #[test]
    fn another_place_is_told_and_another_name_of_the_same_one_is_not() {
        let ground = tempfile::tempdir().unwrap();
        let claw = ground.path().join("claw");
        std::fs::create_dir(&claw).unwrap();
        let link = ground.path().join("link");
        std::os::unix::fs::symlink(&claw, &link).unwrap();
        // Neither file is there.
        let (file, linked) = (claw.join("openclaw.json"), link.join("openclaw.json"));
        let mut record = crate::predecessor::record::tests::begun(ground.path());
        assert_eq!(record.moved(&Places::default()), None, "nothing was told");
        record.terms.told = told(&claw, Some(&file));
        assert_eq!(record.moved(&told(&link, Some(&linked))), None);
        let why = record.moved(&told(ground.path(), Some(&file))).unwrap();
        assert!(why.contains("its state is") && why.contains(&claw.display().to_string()), "{why}");
        let why = record.moved(&told(&claw, Some(&claw.join("clawdbot.json")))).unwrap();
        assert!(why.contains("its configuration is"), "{why}");
        let why = record.moved(&told(&claw, None)).unwrap();
        assert!(why.contains("does not tell where its configuration is"), "{why}");
    }
}
