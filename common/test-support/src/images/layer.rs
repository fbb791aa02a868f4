//! Layers: gzipped tar archives, small and real.

use std::io::Write as _;

use bytes::Bytes;
use flagstate_common::digest::Digest;
use flate2::{Compression, GzBuilder};

/// A layer before it has a media type.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Digest of the archive before compression.
    pub diff_id: Digest,
    /// The compressed archive.
    pub compressed: Bytes,
}

impl Layer {
    /// An archive of a file that tells the seed; images that name the same seed share the layer.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self::of_files(&[(
            &format!("usr/share/{}", seed.replace('/', "-")),
            format!("{seed}\n").as_bytes(),
        )])
    }

    /// An archive of these files, with nothing in it that depends on the clock or on us.
    ///
    /// # Panics
    /// When a path is too long for a tar header.
    #[must_use]
    #[allow(
        clippy::expect_used,
        reason = "writing to memory fails on no input that a test can be right to give"
    )]
    pub fn of_files(files: &[(&str, &[u8])]) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, *content).expect("a short path");
        }
        let archive = archive.into_inner().expect("written to memory");
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
        gzip.write_all(&archive).expect("written to memory");
        let compressed = gzip.finish().expect("written to memory").into();
        Self {
            diff_id: Digest::of(&archive),
            compressed,
        }
    }
}
