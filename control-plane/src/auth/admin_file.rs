//! `--admin-token-file`: the way back in. At each start its content is made an admin token, whatever the store holds.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use gateway_proto::admin::Role;
use jiff::Timestamp;

use super::secret::{MAX_LEN, Secret, SecretFault};
use crate::store::{Store, StoreError, TokenRecord};

/// Name of the token that the file makes; another content replaces it.
pub const ADMIN_FILE_TOKEN: &str = "admin-token-file";

/// Why the file makes no token.
#[derive(Debug, thiserror::Error)]
pub enum AdminFileError {
    /// It cannot be read.
    #[error("cannot read --admin-token-file {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its content is no good as a secret.
    #[error("--admin-token-file {path}: {fault}; make one with `openssl rand -hex 32`", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: SecretFault,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the content of the file, without the white space around it, an admin token for all namespaces.
///
/// # Errors
/// When the file cannot be read, holds no safe secret, or the store fails.
pub async fn put_admin_token_file(store: &dyn Store, path: &Path) -> Result<(), AdminFileError> {
    let secret = read(path)?;
    let record = TokenRecord {
        name: ADMIN_FILE_TOKEN.to_owned(),
        digest: secret.digest(),
        role: Role::Admin,
        namespaces: Vec::new(),
        created: Timestamp::now(),
        expires: None,
    };
    Ok(store.put_token(record).await?)
}

fn read(path: &Path) -> Result<Secret, AdminFileError> {
    let failed = |source| AdminFileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    // Somebody may name a device or a huge file by mistake.
    let bound = 2 * MAX_LEN as u64;
    std::fs::File::open(path).map_err(failed)?.take(bound).read_to_string(&mut text).map_err(failed)?;
    Secret::parse(text.trim()).map_err(|fault| AdminFileError::Content { path: path.to_owned(), fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_trimmed_and_unsafe_content_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        let cases = [
            ("  0123456789abcdef0123456789abcdef\n", None),
            ("hunter2", Some("fewer than 32 characters; make one with `openssl rand -hex 32`")),
            ("", Some("fewer than 32 characters")),
            ("two lines of text that are\nlong enough to be a secret", Some("not visible ASCII")),
            (&"x".repeat(5000), Some("more than 512 characters")),
        ];
        for (content, expected) in cases {
            std::fs::write(&path, content).expect("written");
            match (read(&path), expected) {
                (Ok(secret), None) => assert_eq!(secret.reveal(), content.trim()),
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (outcome, _) => panic!("{content:?}: {outcome:?}"),
            }
        }
        let missing = read(&dir.path().join("none")).expect_err("no such file").to_string();
        assert!(missing.contains("cannot read --admin-token-file"), "{missing}");
    }
}
