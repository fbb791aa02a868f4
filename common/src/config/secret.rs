//! Values that must not be printed.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

/// A secret given as a value or as a file; it cannot be printed.
///
/// The file form follows its file: [`Secret::expose`] looks whether the file was changed or replaced, as
/// orchestrators do when a secret is rotated, and reads it again. A file that went missing or bad
/// is logged once and the value before stays in use. Line ends at the end of a file are not part of the secret.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    Value(Arc<str>),
    File { path: PathBuf, state: Mutex<FileState> },
}

struct FileState {
    value: Arc<str>,
    /// What the file looked like when it was last read or tried; `None` when it was missing.
    seen: Option<Stamp>,
}

/// Tells versions of a file apart. The change time also notices a permission that was mended.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file gives no secret.
#[derive(Debug, Error)]
pub enum ReadSecretError {
    /// Missing, not readable, or not UTF-8.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Nothing in it but line ends.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// A secret that is known already.
    #[must_use]
    pub fn from_value(value: &str) -> Self {
        Self(Arc::new(Source::Value(value.into())))
    }

    /// A secret that a file holds, now and after it changes.
    ///
    /// # Errors
    ///
    /// The file must be readable and hold something now.
    pub fn from_file(path: &Path) -> Result<Self, ReadSecretError> {
        let (value, stamp) = read(path)?;
        Ok(Self(Arc::new(Source::File {
            path: path.to_owned(),
            state: Mutex::new(FileState {
                value,
                seen: Some(stamp),
            }),
        })))
    }

    /// The secret's present value.
    #[must_use]
    pub fn expose(&self) -> Arc<str> {
        match &*self.0 {
            Source::Value(value) => value.clone(),
            Source::File { path, state } => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.follow(path);
                state.value.clone()
            }
        }
    }
}

impl FileState {
    fn follow(&mut self, path: &Path) {
        let present = fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
        if present == self.seen {
            return;
        }
        match read(path) {
            Ok((value, stamp)) => {
                self.value = value;
                self.seen = Some(stamp);
            }
            Err(error) => {
                self.seen = present;
                tracing::warn!(error = %error, "secret file is bad, its last good value stays in use");
            }
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The stamp is taken before the content, so that a write in between shows at the next look.
fn read(path: &Path) -> Result<(Arc<str>, Stamp), ReadSecretError> {
    let unreadable = |source| ReadSecretError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
    let mut content = String::new();
    file.read_to_string(&mut content).map_err(unreadable)?;
    let value = content.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(ReadSecretError::Empty { path: path.to_owned() });
    }
    Ok((value.into(), stamp))
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_print_its_value() {
        let secret = Secret::from_value("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(&*secret.expose(), "hunter2");
    }

    #[test]
    fn trims_line_ends_of_a_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, value) in [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), (" p w \n\n", " p w ")] {
            fs::write(&path, content).unwrap();
            let secret = Secret::from_file(&path).unwrap();
            assert_eq!(&*secret.expose(), value, "{content:?}");
        }
    }

    #[test]
    fn refuses_a_missing_or_empty_file_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(matches!(
            Secret::from_file(&path),
            Err(ReadSecretError::Unreadable { .. })
        ));
        fs::write(&path, "\n").unwrap();
        assert!(matches!(Secret::from_file(&path), Err(ReadSecretError::Empty { .. })));
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(
            Secret::from_file(&path),
            Err(ReadSecretError::Unreadable { .. })
        ));
    }

    #[test]
    fn follows_its_file_and_keeps_the_last_good_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let next = folder.path().join("next");
        fs::write(&path, "first").unwrap();
        let secret = Secret::from_file(&path).unwrap();
        let clone = secret.clone();
        assert_eq!(&*secret.expose(), "first");

        // Replaced, as Kubernetes does it; the same length on purpose.
        fs::write(&next, "again").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(&*secret.expose(), "again");
        assert_eq!(&*clone.expose(), "again");

        // Written in place.
        fs::write(&path, "in place").unwrap();
        assert_eq!(&*secret.expose(), "in place");

        fs::write(&path, "").unwrap();
        assert_eq!(&*secret.expose(), "in place");
        fs::remove_file(&path).unwrap();
        assert_eq!(&*secret.expose(), "in place");
        fs::write(&path, "back").unwrap();
        assert_eq!(&*secret.expose(), "back");
    }
}
