//! Looking for plain text in what was written to disk.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first file below `folder` that holds one of these texts, in the clear or in any form of base64, and which.
pub fn on_disk_contains(folder: &Path, needles: &[String]) -> Option<(PathBuf, String)> {
    assert!(holds_files(folder), "there is no file below {}: nothing was searched", folder.display());
    for needle in needles {
        let forms = forms(needle.as_bytes());
        if let Some(path) = search(folder, &forms) {
            return Some((path, needle.clone()));
        }
    }
    None
}

fn holds_files(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds_files(&entry.path()),
        Ok(kind) => kind.is_file(),
        Err(_) => false,
    })
}

/// By grep, which goes through hundreds of megabytes in no time. Files come and go meanwhile: it says nothing of those.
fn search(folder: &Path, forms: &[Vec<u8>]) -> Option<PathBuf> {
    let mut patterns = tempfile::NamedTempFile::new().expect("a file for the patterns");
    patterns.write_all(&forms.join(&b'\n')).expect("the patterns are written");
    let output = Command::new("grep")
        .args(["--recursive", "--text", "--fixed-strings", "--files-with-matches", "--null", "--no-messages", "--file"])
        .arg(patterns.path())
        .arg(folder)
        .env("LC_ALL", "C")
        .output()
        .expect("grep is there");
    let found = output.stdout.split(|byte| *byte == 0).next().filter(|path| !path.is_empty());
    found.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// As it is, and as it looks inside base64 at each of the three offsets.
fn forms(needle: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![needle.to_vec()];
    for skipped in 0..3 {
        let whole = &needle[skipped..];
        let whole = &whole[..whole.len() / 3 * 3];
        all.push(base64(whole));
    }
    assert!(all.iter().all(|form| form.len() >= 8), "the needle is too short to mean anything");
    all
}

/// Whole groups of three bytes only, so that there is no padding.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|g| u32::from_be_bytes([0, g[0], g[1], g[2]]));
    groups.flat_map(|group| [18, 12, 6, 0].map(|shift| ALPHABET[(group >> shift) as usize & 63])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_in_every_form_and_amid_any_bytes() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let deep = scratch.path().join("a/b");
        fs::create_dir_all(&deep).expect("mkdir");
        let needles = ["something-else".to_owned(), "the-secret-marker".to_owned()];
        // The two in the middle are the base64 of "xxthe-secret-markeryy" and of "xthe-secret-marker".
        let mut amid_zeros = vec![0; 3_000_000];
        amid_zeros.extend_from_slice(b"\xff\xfethe-secret-marker\xff");
        let hiding_places: [&[u8]; 4] =
            [b"...the-secret-marker...", b"eHh0aGUtc2VjcmV0LW1hcmtlcnl5", b"eHRoZS1zZWNyZXQtbWFya2Vy", &amid_zeros];
        for place in hiding_places {
            fs::write(deep.join("file"), place).expect("write");
            let found = on_disk_contains(scratch.path(), &needles);
            assert_eq!(found, Some((deep.join("file"), needles[1].clone())), "{} bytes", place.len());
        }
        fs::write(deep.join("file"), b"...the-secret-marke...").expect("write");
        assert_eq!(on_disk_contains(scratch.path(), &needles), None);
    }
}
