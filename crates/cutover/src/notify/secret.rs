//! What a webhook is signed with, and the signature as the Standard Webhooks specification has it: HMAC-SHA256 over
//! `id.timestamp.body`, in base64, with the version `v1` before it.

use super::{Error, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A shorter one can be guessed (bytes).
const LEAST: usize = 16;
/// A longer file is no secret (bytes).
const MOST: u64 = 4096;
/// A secret that begins with this is the base64 of its bytes.
const ENCODED: &str = "whsec_";

/// A key that no log and no report shows.
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads the secret in a file: what stands there without white space around it, or the bytes behind `whsec_`.
    ///
    /// # Errors
    /// [`Error::Secret`], [`Error::Open`], [`Error::Weak`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Secret { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.by_ref().take(MOST).read_to_string(&mut text).map_err(failed)?;
        Self::parse(text.trim()).map_err(|found| Error::Weak { path: path.to_owned(), found, least: LEAST })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let bytes = match text.strip_prefix(ENCODED) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| "`whsec_` and no base64 behind it")?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < LEAST {
            return Err(if bytes.is_empty() { "nothing" } else { "a secret that can be guessed" });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature`.
    pub(super) fn signature(&self, message: &Message) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [&message.id, ".", &message.sent.to_string(), ".", &message.body] {
            context.update(part.as_bytes());
        }
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    /// The example of the specification's own libraries.
    #[test]
    fn the_signature_is_what_other_peoples_libraries_expect() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            sent: 1_614_265_330,
            body: r#"{"test": 2432232314}"#.into(),
        };
        assert_eq!(secret.signature(&message), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_others_can_read_or_guess_is_refused() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("secret");
        let read = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Secret::read(&path).map(drop).map_err(|error| error.to_string())
        };
        let good = "0123456789abcdef0123\n";
        assert_eq!(read(good, 0o600), Ok(()));
        assert_eq!(read(good, 0o400), Ok(()));
        for mode in [0o640, 0o604, 0o660] {
            assert!(read(good, mode).unwrap_err().contains("chmod 600"));
        }
        for (weak, word) in
            [("", "nothing"), ("\n", "nothing"), ("short\n", "guessed"), ("whsec_?", "no base64")]
        {
            assert!(read(weak, 0o600).unwrap_err().contains(word), "{weak}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Secret::read(&path), Err(Error::Secret { .. })));
    }
}
