//! The small trees that `oracle/corpus.txt` lists.

use std::fs;
use std::path::Path;

/// One tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) name: String,
    pub(crate) files: Vec<(String, Content)>,
}

#[derive(Debug)]
pub(crate) enum Content {
    Text(String),
    Link(String),
}

pub(crate) fn trees() -> Vec<Tree> {
    let text = include_str!("../oracle/corpus.txt");
    let mut trees: Vec<Tree> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            trees.push(Tree { name: name.to_owned(), files: Vec::new() });
            continue;
        }
        let Some(tree) = trees.last_mut() else { continue };
        if let Some(path) = line.strip_prefix("-- ") {
            tree.files.push(match path.split_once(" -> ") {
                Some((path, target)) => (path.to_owned(), Content::Link(target.to_owned())),
                None => (path.to_owned(), Content::Text(String::new())),
            });
        } else if let Some((_, Content::Text(text))) = tree.files.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    trees
}

impl Tree {
    pub(crate) fn write(&self, root: &Path) {
        for (path, content) in &self.files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content {
                Content::Text(text) => fs::write(path, text).unwrap(),
                Content::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            }
        }
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        let is_entry = |path: &&String| matches!(path.as_str(), "main.mjs" | "main.cjs" | "main.js");
        self.files.iter().map(|(path, _)| path).filter(is_entry).cloned().collect()
    }
}
