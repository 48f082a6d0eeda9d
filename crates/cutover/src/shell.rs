//! Words as a person types them: what is printed to be typed is read by a shell.

/// A word that a shell reads as exactly this.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A command line as it is typed, without what its options say of secrets.
pub(crate) fn shown(command: &[String]) -> String {
    let mut hide = false;
    let words = command.iter().map(|word| {
        let (option, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, of)| (name, Some(of)));
        let is_secret = ["--token", "--password"].contains(&option);
        let was = std::mem::replace(&mut hide, is_secret && value.is_none());
        match (was, is_secret && value.is_some()) {
            (true, _) => "[hidden]".to_owned(),
            (false, true) => format!("{option}=[hidden]"),
            (false, false) => quoted(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_meant() {
        for word in ["/a/b c", "it's", "", "$HOME", "#1000", "a=b", "*", "plain"] {
            let script = format!("printf %s {}", quoted(word));
            let read = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&read.stdout), word);
        }
    }

    #[test]
    fn a_secret_is_shown_in_no_form() {
        let words = ["node", "a b.js", "--token", "one", "--port", "1", "--password=two"].map(str::to_owned);
        assert_eq!(shown(&words), "node 'a b.js' --token [hidden] --port 1 --password=[hidden]");
    }
}
