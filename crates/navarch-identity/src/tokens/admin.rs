//! The admin token: who can read it in the state directory may change what the server does.
//!
//! It is the proof of commands on the machine of the server (`navarch ca rotate`, `navarch
//! confirm-removals`). The directory lets only its owner in, so it is worth what a socket of that owner
//! would be.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;
use crate::store::{StateDirectory, StoreError};

/// The file in the state directory.
pub const FILE: &str = "admin-token";

/// Random bytes of a token.
const BYTES: usize = 32;

/// Proof of the right to change what the server does.
#[derive(Clone, Debug)]
pub struct AdminToken(Secret);

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the system gives no random bytes")]
    Random,
    #[error("{FILE} is empty or no text: remove it and start the server again")]
    Malformed,
}

impl AdminToken {
    /// The token of a directory, which is made if there is none.
    ///
    /// # Errors
    /// If it cannot be read or made.
    pub fn open(directory: &StateDirectory) -> Result<Self, AdminTokenError> {
        if !directory.has(FILE) {
            let mut bytes = zeroize::Zeroizing::new([0; BYTES]);
            aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| AdminTokenError::Random)?;
            let text = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
            // Of two that make one at once, the first counts.
            directory.create(FILE, text.as_bytes())?;
        }
        Self::read(directory)
    }

    /// The token of a directory that has one.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn read(directory: &StateDirectory) -> Result<Self, AdminTokenError> {
        let text = directory.read(FILE)?.ok_or(AdminTokenError::Malformed)?;
        let token = text.expose_text().map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or(AdminTokenError::Malformed)?.to_owned();
        Ok(AdminToken(Secret::from(token)))
    }

    /// Whether somebody has presented it.
    #[must_use]
    pub fn is(&self, presented: &Secret) -> bool {
        self.0.is_same(presented)
    }

    /// The text, for who presents it.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_not_guessed() {
        let temp = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(&temp.path().join("state")).expect("open");
        assert!(AdminToken::read(&directory).is_err(), "there is none");
        let made = AdminToken::open(&directory).expect("made");
        let found = AdminToken::open(&directory).expect("found");
        assert!(found.is(made.secret()));
        assert!(made.secret().expose().len() >= 43);
        for wrong in ["", "x", &"A".repeat(43)] {
            assert!(!made.is(&Secret::from(wrong.to_owned())), "{wrong}");
        }
        directory.replace(FILE, b" \n").expect("written");
        assert!(matches!(AdminToken::open(&directory), Err(AdminTokenError::Malformed)));
    }
}
